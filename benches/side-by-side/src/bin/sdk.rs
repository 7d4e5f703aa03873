//! A plain program that asks with the official SDK.

fn main() {}
