//! `grpc-timeout`: the value of the header.

use std::time::Duration;

use glacier_gateway::fuzzing::Door;

/// Read as the specification says it: exactly then, and with exactly that meaning, it is accepted.
pub fn grpc_timeout(input: &[u8]) {
    assert_eq!(Door::timeout(input), specified(input), "{:?}", String::from_utf8_lossy(input));
}

/// "gRPC over HTTP2": `TimeoutValue` is a positive integer of at most 8 digits, `TimeoutUnit` one letter.
fn specified(input: &[u8]) -> Option<Duration> {
    let text = str::from_utf8(input).ok()?;
    let digits = text.strip_suffix(['H', 'M', 'S', 'm', 'u', 'n'])?;
    // `str::parse` would take a sign.
    if !(1..=8).contains(&digits.len()) || digits.contains(|c: char| !c.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    let nanos_each: u64 = match text.chars().last()? {
        'H' => 3_600_000_000_000,
        'M' => 60_000_000_000,
        'S' => 1_000_000_000,
        'm' => 1_000_000,
        'u' => 1_000,
        _ => 1,
    };
    let nanos = u128::from(amount) * u128::from(nanos_each);
    Some(Duration::new(u64::try_from(nanos / 1_000_000_000).ok()?, u32::try_from(nanos % 1_000_000_000).ok()?))
}
