//! WebSocket (RFC 6455) on the gateway's side: the upgrade's head and binary messages.
