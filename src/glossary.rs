#![doc = include_str!("glossary.md")]

#[cfg(test)]
mod tests;
