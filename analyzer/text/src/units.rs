//! Prints and reads sizes, rates, durations and counts.
//!
//! Printed sizes are binary (KiB = 1024), as in allocators and in `/proc`. When edleak reads a size, `KB` is
//! 1000 bytes and `KiB` is 1024 bytes. A `k` alone is also 1024 bytes, as in the program dd.

use crate::error::{Error, ErrorKind, Result};
use std::time::Duration;

const BINARY: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Prints a size: `17 B`, `9.4 KiB`, `312 MiB`.
pub fn bytes(bytes: f64) -> String {
    let mut value = bytes.abs();
    let mut unit = 0;
    // From 999.5 on, the number would be printed with four digits, as "1000". So print a value from 999.5 on
    // in the next larger unit.
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

/// Prints a rate per second, minute, hour or day, so that the number is easy to read: `1.2 KiB/s`, `34
/// B/min`, `5 B/day`.
pub fn rate(bytes_per_s: f64) -> String {
    const UNITS: [(&str, f64); 4] = [("s", 1.0), ("min", 60.0), ("h", 3600.0), ("day", 86400.0)];
    let (unit, seconds) = UNITS
        .into_iter()
        .find(|(_, seconds)| (bytes_per_s * seconds).abs() >= 10.0)
        .unwrap_or(if bytes_per_s == 0.0 { UNITS[0] } else { UNITS[3] });
    format!("{}/{unit}", bytes(bytes_per_s * seconds))
}

/// Prints a duration with at most two units: `80 ms`, `8 s`, `1 min 20 s`, `3 h 12 min`, `5 d 2 h`.
pub fn duration(seconds: f64) -> String {
    if seconds < 0.9995 {
        return format!("{:.0} ms", seconds * 1e3);
    }
    if seconds < 9.95 && (seconds - seconds.round()).abs() >= 0.05 {
        return format!("{seconds:.1} s");
    }
    // No recording is as long as 1e15 seconds, and every number up to 1e15 can be cast exactly.
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

/// Prints a share of 1: `87 %`, `less than 1 %`.
pub fn percent(share: f64) -> String {
    match 100.0 * share {
        percent if percent > 0.0 && percent < 1.0 => "less than 1 %".to_owned(),
        percent => format!("{percent:.0} %"),
    }
}

/// Prints a count with commas between groups of three digits: `1,234,567`. The commas are the same in every
/// locale.
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

/// Prints a number with its noun: `1 site`, `2 sites`.
pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// Reads a size: `512`, `10KB`, `1.5 MiB`, `64M`. `KB` is 1000 bytes; `KiB` and a `k` alone are 1024 bytes.
///
/// # Errors
/// The text is not a number with a unit.
pub fn parse_bytes(text: &str) -> Result<f64> {
    let (number, unit) = number_and_unit(text);
    let scale = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(1.0),
        "kb" => Some(1e3),
        "mb" => Some(1e6),
        "gb" => Some(1e9),
        "tb" => Some(1e12),
        "k" | "kib" => Some(f64::from(1u32 << 10)),
        "m" | "mib" => Some(f64::from(1u32 << 20)),
        "g" | "gib" => Some(f64::from(1u32 << 30)),
        "t" | "tib" => Some((1u64 << 40) as f64),
        _ => None,
    };
    number.zip(scale).map(|(number, scale)| number * scale).ok_or_else(|| {
        Error::new(
            ErrorKind::Size,
            format!("`{text}` is not a size"),
            "write a number and B, KB, MB, GB, KiB, MiB, GiB, or k, M, G for the latter, like 64MiB",
        )
    })
}

/// Reads a size in whole bytes, in the forms that [`parse_bytes`] accepts.
///
/// # Errors
/// The text is not a size, or the size is 8 PiB or more. A float cannot represent every whole number from 8
/// PiB on, and no file is so large.
pub fn parse_size(text: &str) -> Result<u64> {
    let bytes = parse_bytes(text)?;
    if bytes < 2f64.powi(53) {
        return Ok(bytes as u64);
    }
    Err(Error::new(ErrorKind::Size, format!("`{text}` is too large"), "use less than 8 PiB"))
}

/// Reads a rate in bytes per second: `10KB/min`, `1 MiB/h`, `64/s`.
///
/// # Errors
/// The text is not a size, a slash and a unit of time.
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
        "sec" | "second" => 1.0,
        "minute" => 60.0,
        "hour" => 3600.0,
        "day" => 86400.0,
        unit @ ("s" | "m" | "min" | "h" | "d") => seconds_of(unit).ok_or_else(invalid)?,
        _ => return Err(invalid()),
    };
    Ok(parse_bytes(size).map_err(|_| invalid())? / seconds)
}

/// Reads a duration: `100ms`, `1s`, `1.5 m`, `2h`, `7d`; a bare number is in seconds.
///
/// # Errors
/// The text is not a number with a unit of time, or the time is too long for [`Duration`].
pub fn parse_duration(text: &str) -> Result<Duration> {
    let (number, unit) = number_and_unit(text);
    let seconds = if unit.is_empty() { Some(1.0) } else { seconds_of(unit) };
    let Some((number, seconds)) = number.zip(seconds) else {
        return Err(Error::new(
            ErrorKind::Duration,
            format!("`{text}` is not a duration"),
            "write a number and ms, s, m, h or d, like 100ms or 2h",
        ));
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| {
        Error::new(ErrorKind::Duration, format!("`{text}` is too long"), "use less than a century")
    })
}

fn seconds_of(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    })
}

/// Splits a text into the number at its start and the word after the number. A number with a sign or an
/// exponent is refused.
fn number_and_unit(text: &str) -> (Option<f64>, &str) {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    (number.parse().ok().filter(|number: &f64| number.is_finite()), unit.trim())
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

    #[test]
    fn both_programs_read_the_same_size() {
        for (text, bytes) in [
            ("64M", 64 << 20),
            ("64MiB", 64 << 20),
            ("64MB", 64_000_000),
            ("512k", 512 << 10),
            ("512K", 512 << 10),
            ("10KB", 10_000),
            ("2 G", 2 << 30),
            ("1.5k", 1536),
            ("100", 100),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(parse_rate(&format!("{text}/s")), Ok(bytes as f64), "{text}");
        }
        for text in ["", "M", "1X", "-1", "1e9", "inf"] {
            assert_eq!(parse_size(text).unwrap_err().kind(), ErrorKind::Size, "{text}");
        }
        assert_eq!(
            parse_size("99999999999G").unwrap_err().to_string(),
            "`99999999999G` is too large (use less than 8 PiB)"
        );
    }

    #[test]
    fn durations_are_read_and_nonsense_is_refused() {
        for (text, milliseconds) in
            [("100ms", 100), ("1.5s", 1500), ("2", 2000), ("2h", 7_200_000), ("1 min", 60_000), ("50us", 0)]
        {
            let duration = parse_duration(text).expect(text);
            assert_eq!(duration.as_millis(), milliseconds, "{text}");
        }
        for text in ["", "s", "1x", "-1s", "1e400d", "..s"] {
            assert_eq!(parse_duration(text).unwrap_err().kind(), ErrorKind::Duration, "{text}");
        }
        assert!(parse_duration(&format!("{}d", "9".repeat(30))).is_err());
    }
}
