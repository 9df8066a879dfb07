//! Logs in, says hello to user 2, and prints what comes until there is nothing more.

use std::{env, time::Duration};

use ringway_client::{Conversation, DeviceId, Event, UserId, blocking::Client};

/// RINGWAY is a gateway's `host:port`, TOKEN a user's token.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut client = Client::connect(env::var("RINGWAY")?, env::var("TOKEN")?, DeviceId(1), None)?;
    let request = client.send(Conversation::User(UserId(2)), b"hello")?;
    client.wait_sent(request, Duration::from_secs(10))?; // from here on it is on the gateway's disk
    while let Some(event) = client.next(Duration::from_secs(2))? {
        if let Event::Row(row) = event {
            println!("{} from user {}: {}", row.seq, row.sender, String::from_utf8_lossy(&row.body));
        }
    }
    Ok(())
}
