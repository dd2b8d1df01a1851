//! Bytes, rates and durations, as people read and write them.
//!
//! Printed sizes are binary (KiB = 1024), because that is what allocators and `/proc` count in. Read sizes follow their
//! unit: `KB` is 1000 bytes, `KiB` is 1024.

use crate::error::{Error, ErrorKind, Result};

const BINARY: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// A size: `17 B`, `9.4 KiB`, `312 MiB`.
pub fn bytes(bytes: f64) -> String {
    let mut value = bytes.abs();
    let mut unit = 0;
    // 999.5 would print as "1000": the next unit reads better and stays within four digits.
    while value >= 999.5 && unit + 1 < BINARY.len() {
        value /= 1024.0;
        unit += 1;
    }
    let sign = if bytes < 0.0 { "-" } else { "" };
    match unit {
        0 => format!("{sign}{value:.0} B"),
        _ if value < 9.95 => format!("{sign}{value:.1} {}", BINARY[unit]),
        _ => format!("{sign}{value:.0} {}", BINARY[unit]),
    }
}

/// A rate in the largest unit of time that keeps it readable: `1.2 KiB/s`, `34 B/min`, `5 B/day`.
pub fn rate(bytes_per_s: f64) -> String {
    const UNITS: [(&str, f64); 4] = [("s", 1.0), ("min", 60.0), ("h", 3600.0), ("day", 86400.0)];
    let (unit, seconds) = UNITS
        .into_iter()
        .find(|(_, seconds)| (bytes_per_s * seconds).abs() >= 10.0)
        .unwrap_or(if bytes_per_s == 0.0 { UNITS[0] } else { UNITS[3] });
    format!("{}/{unit}", bytes(bytes_per_s * seconds))
}

/// A duration in at most two units: `80 ms`, `8 s`, `1 min 20 s`, `3 h 12 min`, `5 d 2 h`.
pub fn duration(seconds: f64) -> String {
    if seconds < 0.9995 {
        return format!("{:.0} ms", seconds * 1e3);
    }
    if seconds < 9.95 && (seconds - seconds.round()).abs() >= 0.05 {
        return format!("{seconds:.1} s");
    }
    // Far beyond any recording; keeps the cast below exact.
    let whole = seconds.round().min(1e15) as u64;
    let (major, minor) = match whole {
        0..60 => return format!("{whole} s"),
        60..3600 => ((whole / 60, "min"), (whole % 60, "s")),
        3600..86400 => ((whole / 3600, "h"), (whole % 3600 / 60, "min")),
        _ => ((whole / 86400, "d"), (whole % 86400 / 3600, "h")),
    };
    if minor.0 == 0 {
        format!("{} {}", major.0, major.1)
    } else {
        format!("{} {} {} {}", major.0, major.1, minor.0, minor.1)
    }
}

/// A count with thousands separated: `1 234 567`, so that it survives any locale.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 site`, `2 sites`.
pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// Reads a size: `512`, `10KB`, `1.5 MiB`.
pub fn parse_bytes(text: &str) -> Result<f64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1.0),
        "kb" => Some(1e3),
        "mb" => Some(1e6),
        "gb" => Some(1e9),
        "kib" => Some(1024.0),
        "mib" => Some(1024.0 * 1024.0),
        "gib" => Some(1024.0 * 1024.0 * 1024.0),
        _ => None,
    };
    match (number.parse::<f64>(), scale) {
        (Ok(number), Some(scale)) if number.is_finite() => Ok(number * scale),
        _ => Err(Error::new(
            ErrorKind::Size,
            format!("`{text}` is not a size"),
            "write a number and B, KB, KiB, MB, MiB, GB or GiB, like 64KiB",
        )),
    }
}

/// Reads a rate in bytes per second: `10KB/min`, `1 MiB/h`, `64/s`.
pub fn parse_rate(text: &str) -> Result<f64> {
    let invalid = || {
        Error::new(
            ErrorKind::Rate,
            format!("`{text}` is not a rate"),
            "write a size, / and s, min, h or day, like 10KB/min",
        )
    };
    let (size, per) = text.split_once('/').ok_or_else(invalid)?;
    let seconds = match per.trim().to_ascii_lowercase().as_str() {
        "s" | "sec" | "second" => 1.0,
        "m" | "min" | "minute" => 60.0,
        "h" | "hour" => 3600.0,
        "d" | "day" => 86400.0,
        _ => return Err(invalid()),
    };
    Ok(parse_bytes(size).map_err(|_| invalid())? / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_two_or_three_digits() {
        let cases =
            [(0.0, "0 B"), (999.0, "999 B"), (1000.0, "1.0 KiB"), (9626.0, "9.4 KiB"), (10.0e6, "9.5 MiB")];
        for (value, text) in cases {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(bytes(327_155_712.0), "312 MiB");
        assert_eq!(bytes(-2048.0), "-2.0 KiB");
        assert_eq!(bytes(u64::MAX as f64), "16777216 TiB");
    }

    #[test]
    fn slow_rates_get_a_longer_unit_of_time() {
        assert_eq!(rate(1234.0), "1.2 KiB/s");
        assert_eq!(rate(1.0), "60 B/min");
        assert_eq!(rate(0.01), "36 B/h");
        assert_eq!(rate(0.00001), "1 B/day");
        assert_eq!(rate(0.0), "0 B/s");
    }

    #[test]
    fn durations_have_at_most_two_units() {
        let cases = [
            (0.08, "80 ms"),
            (8.0, "8 s"),
            (8.04, "8 s"),
            (1.5, "1.5 s"),
            (80.0, "1 min 20 s"),
            (3600.0, "1 h"),
            (11_520.0, "3 h 12 min"),
        ];
        for (value, text) in cases {
            assert_eq!(duration(value), text);
        }
        assert_eq!(duration(5.0 * 86400.0 + 2.0 * 3600.0), "5 d 2 h");
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1234), "1,234");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(plural(1, "site", "sites"), "1 site");
        assert_eq!(plural(2000, "site", "sites"), "2,000 sites");
    }

    #[test]
    fn sizes_and_rates_are_read() {
        assert_eq!(parse_bytes("512").unwrap(), 512.0);
        assert_eq!(parse_bytes("10KB").unwrap(), 10_000.0);
        assert_eq!(parse_bytes("1.5 MiB").unwrap(), 1_572_864.0);
        assert_eq!(parse_rate("60KB/min").unwrap(), 1000.0);
        assert_eq!(parse_rate("36 B / h").unwrap(), 0.01);
        for bad in ["", "KB", "1.2.3KB", "10XB/s", "10KB", "10KB/fortnight", "-5B/s", "inf/s", "1e3/s"] {
            assert!(parse_rate(bad).unwrap_err().to_string().contains("10KB/min"), "{bad}");
        }
    }
}
