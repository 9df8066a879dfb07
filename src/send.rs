#![doc = include_str!("send.md")]

#[cfg(test)]
mod tests;
