//! End-to-end tests: the real binary, real sockets, real signals, a real disk.
//!
//! One test binary, a file per promise; `gateway.rs` starts and ends the process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests wait, and share between threads")]
#![allow(missing_docs, reason = "tests")]

mod abuse;
mod access;
mod admin;
mod announced;
mod api;
mod api_hostile;
mod backend;
mod bad_input;
mod black_hole;
mod broadcasts;
mod buckets;
mod chat;
mod closes;
mod cluster;
mod cluster_crash;
mod cluster_outage;
mod cluster_ready;
mod colliding;
mod connection;
mod crash;
mod dashboard;
mod descriptors;
mod doctor;
mod example;
mod floods;
mod following;
mod frames;
mod gateway;
mod half_open;
mod heartbeat;
mod history;
mod hostile;
mod http;
mod kept;
mod leaving;
mod lost_changes;
mod names_kept;
mod nodes;
mod numbering;
mod old_dump;
mod openapi;
mod operators;
mod order;
mod outage;
mod pages;
mod privacy;
mod proxy;
mod receiver;
mod redis;
#[path = "../sim/cluster/redis.rs"]
#[expect(dead_code, reason = "the simulator uses more of it")]
mod redis_model;
mod refused_logins;
mod repeats;
mod scripts;
mod scripts_model;
mod services;
mod settings;
mod slow_reader;
mod smoke;
mod soak;
mod soak_losses;
mod start;
mod stops;
mod storm;
mod streams;
mod strict_websocket;
mod successor;
mod systemd;
mod tokens;
mod tracing;
mod traffic;
mod trouble;
mod tuning;
mod webhooks;
mod webhooks_cluster;
