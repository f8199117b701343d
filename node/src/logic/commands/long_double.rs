//! The numbers of `INCRBYFLOAT`: Redis computes in the x86 extended format (64 bits of mantissa) and prints 17 decimals
//! less trailing zeros. Doubles would answer 0.30000000000000004 for 0.1 + 0.2, where Redis answers 0.3; so the format is
//! computed here, rounding to nearest and ties to even as the hardware does.

use std::fmt;

/// Longest text that is read as a number.
const MAX_TEXT: usize = 5 * 1024;
/// Decimals printed, and ten to that power.
const DECIMALS: usize = 17;
const SCALE: u128 = 100_000_000_000_000_000;
/// Highest exponent of the mantissa's lowest bit: the format's 16,383 less 63.
const MAX_EXPONENT: i64 = 16_320;
/// The same of half the smallest number that is not zero, 2^-16,445: up to there numbers become zero.
const HALF_OF_LEAST: i64 = -16_446 - 63;

/// A number of the extended format, or too large for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LongDouble {
    /// ± `mantissa` × 2^`exponent`; the highest bit is set unless the number is zero.
    Finite { negative: bool, mantissa: u64, exponent: i64 },
    /// An infinity.
    Infinite { negative: bool },
}

impl LongDouble {
    /// Reads decimal, scientific and hexadecimal notation and `inf`, as the C library does. None: not a number, or one
    /// that the format cannot hold.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        if text.is_empty() || text.len() >= MAX_TEXT {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
            return Some(Self::Infinite { negative });
        }
        let hexadecimal = text.len() > 2 && text[..2].eq_ignore_ascii_case(b"0x");
        let (radix, text) = if hexadecimal { (16, &text[2..]) } else { (10, text) };
        let written = Written::parse(text, radix)?;
        let zero = written.digits.is_zero();
        let number = if radix == 16 {
            round(written.digits, 4 * written.point + written.exponent, false, negative)
        } else {
            written.decimal(negative)
        };
        match number {
            Self::Finite { mantissa: 0, .. } if !zero => None,
            Self::Infinite { .. } => None,
            Self::Finite { .. } => Some(number),
        }
    }

    /// The sum, rounded; none: it is no finite number.
    pub(super) fn add(self, other: Self) -> Option<Self> {
        let (Self::Finite { .. }, Self::Finite { .. }) = (self, other) else { return None };
        let (large, small) = if self.magnitude() >= other.magnitude() { (self, other) } else { (other, self) };
        let Self::Finite { negative, mantissa, exponent } = large else { return None };
        let Self::Finite { negative: small_negative, mantissa: small_mantissa, exponent: small_exponent } = small
        else {
            return None;
        };
        if small_mantissa == 0 {
            return Some(large);
        }
        // 63 more bits than the format has; what falls off below only decides which way to round.
        let high = u128::from(mantissa) << 63;
        let shift = u32::try_from(exponent - small_exponent).unwrap_or(u32::MAX);
        let exact = u128::from(small_mantissa) << 63;
        let low = exact.checked_shr(shift).unwrap_or(0);
        let lost = low.checked_shl(shift).is_none_or(|back| back != exact);
        let sum = if negative == small_negative { high + low } else { high - low - u128::from(lost) };
        match round(Digits::from(sum), exponent - 63, lost, negative) {
            Self::Infinite { .. } => None,
            number @ Self::Finite { .. } => Some(number),
        }
    }

    /// For comparing by size: zero first, then by exponent and mantissa.
    fn magnitude(self) -> (bool, i64, u64) {
        match self {
            Self::Finite { mantissa, exponent, .. } => (mantissa != 0, exponent, mantissa),
            Self::Infinite { .. } => (true, i64::MAX, 0),
        }
    }
}

impl fmt::Display for LongDouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (negative, mantissa, exponent) = match *self {
            Self::Infinite { negative } => return f.write_str(if negative { "-inf" } else { "inf" }),
            Self::Finite { negative, mantissa, exponent } => (negative, mantissa, exponent),
        };
        let text = if exponent >= 0 {
            Digits::from(u128::from(mantissa)).shifted(exponent as usize).to_decimal()
        } else {
            fraction(mantissa, -exponent)
        };
        let sign = if negative && text != "0" { "-" } else { "" };
        write!(f, "{sign}{text}")
    }
}

/// `mantissa` / 2^`shift` with 17 decimals, ties to even, without trailing zeros.
fn fraction(mantissa: u64, shift: i64) -> String {
    let scaled = u128::from(mantissa) * SCALE;
    // Below 2^122, so that a larger shift leaves less than a half.
    let rounded = if shift > 122 {
        0
    } else {
        let (whole, rest, half) = (scaled >> shift, scaled & ((1 << shift) - 1), 1_u128 << (shift - 1));
        whole + u128::from(rest > half || (rest == half && whole & 1 == 1))
    };
    let text = format!("{}.{:0DECIMALS$}", rounded / SCALE, rounded % SCALE);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The nearest number of the format to `digits` × 2^`exponent`, plus something smaller if `more`.
fn round(mut digits: Digits, mut exponent: i64, more: bool, negative: bool) -> LongDouble {
    let mut sticky = more;
    let surplus = digits.bits() as i64 - 66;
    if surplus > 0 {
        sticky |= digits.shift_right(surplus as usize);
        exponent += surplus;
    }
    // At most 66 bits now: two below the format's, and `sticky` for all others.
    let mut value = digits.low_128();
    if value == 0 {
        return LongDouble::Finite { negative, mantissa: 0, exponent: 0 };
    }
    let shift = 66 - (128 - i64::from(value.leading_zeros()));
    value <<= shift;
    exponent -= shift;
    let (kept, rest) = (value >> 2, value & 3);
    let up = rest == 3 || (rest == 2 && (sticky || kept & 1 == 1));
    let mut mantissa = kept + u128::from(up);
    exponent += 2;
    if mantissa >> 64 == 1 {
        mantissa >>= 1;
        exponent += 1;
    }
    if exponent > MAX_EXPONENT {
        return LongDouble::Infinite { negative };
    }
    if (exponent, mantissa) <= (HALF_OF_LEAST, 1 << 63) {
        return LongDouble::Finite { negative, mantissa: 0, exponent: 0 };
    }
    LongDouble::Finite { negative, mantissa: mantissa as u64, exponent }
}

/// A number as it is written: all digits without the point, where the point was, and the exponent.
struct Written {
    digits: Digits,
    /// Digits behind the point, negated.
    point: i64,
    exponent: i64,
}

impl Written {
    fn parse(text: &[u8], radix: u32) -> Option<Self> {
        let (mut digits, mut point, mut seen, mut after_point) = (Digits::from(0), 0, false, false);
        let mut rest = text;
        while let [byte, after @ ..] = rest {
            match char::from(*byte).to_digit(radix) {
                Some(digit) => {
                    digits.multiply_add(radix, digit);
                    seen = true;
                    point -= i64::from(after_point);
                }
                None if *byte == b'.' && !after_point => after_point = true,
                None => break,
            }
            rest = after;
        }
        let marker = if radix == 16 { b'p' } else { b'e' };
        let exponent = match rest {
            _ if !seen => return None,
            [] => 0,
            [mark, number @ ..] if mark.to_ascii_lowercase() == marker => exponent(number)?,
            _ => return None,
        };
        Some(Self { digits, point, exponent })
    }

    fn decimal(mut self, negative: bool) -> LongDouble {
        let power = self.point + self.exponent;
        let below_ten_to = self.digits.bits() as i64 / 3 + 1 + power;
        if self.digits.is_zero() || below_ten_to < -4_960 {
            return LongDouble::Finite { negative, mantissa: 0, exponent: 0 };
        }
        if power > 5_000 {
            return LongDouble::Infinite { negative };
        }
        if power >= 0 {
            powers_of_ten(power).for_each(|ten| self.digits.multiply_add(ten, 0));
            return round(self.digits, 0, false, negative);
        }
        // Enough bits in front that the quotient has more than the format.
        let shift = 70 + 4 * power.unsigned_abs() as usize;
        let mut quotient = self.digits.shifted(shift);
        let lost = powers_of_ten(-power).filter(|ten| quotient.divide(*ten) != 0).count() > 0;
        round(quotient, -(shift as i64), lost, negative)
    }
}

/// Factors whose product is ten to the `power`.
fn powers_of_ten(power: i64) -> impl Iterator<Item = u32> {
    let large = std::iter::repeat_n(1_000_000_000, power as usize / 9);
    large.chain(std::iter::repeat_n(10, power as usize % 9))
}

fn exponent(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Far beyond the format's range all exponents are alike.
    Some(sign * digits.iter().fold(0, |n: i64, digit| (n * 10 + i64::from(digit - b'0')).min(1_000_000)))
}

/// A natural number of any length, its lowest 32 bits first, without zeros at the end.
#[derive(Clone, Debug)]
struct Digits(Vec<u32>);

impl From<u128> for Digits {
    fn from(n: u128) -> Self {
        let mut digits = Self((0..4).map(|i| (n >> (32 * i)) as u32).collect());
        digits.trim();
        digits
    }
}

impl Digits {
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn bits(&self) -> usize {
        self.0.last().map_or(0, |last| self.0.len() * 32 - last.leading_zeros() as usize)
    }

    fn low_128(&self) -> u128 {
        self.0.iter().take(4).rev().fold(0, |n, word| n << 32 | u128::from(*word))
    }

    fn multiply_add(&mut self, by: u32, add: u32) {
        let mut carry = u64::from(add);
        for word in &mut self.0 {
            let product = u64::from(*word) * u64::from(by) + carry;
            (*word, carry) = (product as u32, product >> 32);
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    /// Divides; returns what is left over.
    fn divide(&mut self, by: u32) -> u32 {
        let mut rest = 0;
        for word in self.0.iter_mut().rev() {
            let part = rest << 32 | u64::from(*word);
            (*word, rest) = ((part / u64::from(by)) as u32, part % u64::from(by));
        }
        self.trim();
        rest as u32
    }

    fn shifted(&self, bits: usize) -> Self {
        let mut shifted = vec![0; bits / 32];
        let mut carry = 0;
        for word in &self.0 {
            let wide = u64::from(*word) << (bits % 32) | carry;
            shifted.push(wide as u32);
            carry = wide >> 32;
        }
        shifted.push(carry as u32);
        let mut shifted = Self(shifted);
        shifted.trim();
        shifted
    }

    /// Drops low bits; returns whether any of them was set.
    fn shift_right(&mut self, bits: usize) -> bool {
        let words = (bits / 32).min(self.0.len());
        let mut lost = self.0.drain(..words).any(|word| word != 0);
        let bits = bits % 32;
        if let Some(first) = self.0.first() {
            lost |= first & ((1_u32 << bits) - 1) != 0;
        }
        for i in 0..self.0.len() {
            let above = u64::from(self.0.get(i + 1).copied().unwrap_or(0)) << 32;
            self.0[i] = ((above | u64::from(self.0[i])) >> bits) as u32;
        }
        self.trim();
        lost
    }

    fn to_decimal(&self) -> String {
        let mut rest = self.clone();
        let mut groups = Vec::new();
        while !rest.is_zero() {
            groups.push(rest.divide(1_000_000_000));
        }
        let first = groups.pop().unwrap_or(0).to_string();
        std::iter::once(first).chain(groups.iter().rev().map(|group| format!("{group:09}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        let number = |text: &str| LongDouble::parse(text.as_bytes());
        Some(number(a)?.add(number(b)?)?.to_string())
    }

    /// The expected texts are what Redis 7.0.15 answered on x86-64.
    #[test]
    fn sums_are_those_of_redis() {
        let table = [
            ("0.1", "0.2", "0.3"),
            ("1000000", "0.1", "1000000.10000000000002274"),
            ("10.5", "0.1", "10.6"),
            ("5.6", "3.0e2", "305.60000000000000001"),
            ("123456789.123", "0.001", "123456789.12399999999615829"),
            ("0", "1e-20", "0"),
            ("0", "-1e-20", "0"),
            ("0", "0x10", "16"),
            ("0", "0x1.8p1", "3"),
            ("1", "-1", "0"),
            ("-0.5", "0.25", "-0.25"),
            ("3", ".5", "3.5"),
            ("3", "5.", "8"),
            ("+1", "1E2", "101"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("36893488147419103232", "1", "36893488147419103232"),
        ];
        for (a, b, expected) in table {
            assert_eq!(sum(a, b).as_deref(), Some(expected), "{a} + {b}");
        }
        let large = sum("1e300", "1").unwrap();
        assert!(large.len() == 301 && large.starts_with("1000000000000000000008997324079559193870523944273290"));
        assert!(large.ends_with("089424915104006144"));
    }

    #[test]
    fn what_is_no_number_and_what_is_too_large() {
        let table =
            ["", " 1", "1 ", "nan", "1e", "e1", ".", "-", "0x", "1.2.3", "12a", "1e5000", "1e-5000", "1e-999999999999"];
        for text in table {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(LongDouble::parse(b"-inf"), Some(LongDouble::Infinite { negative: true }));
        assert_eq!(sum("1", "inf"), None);
        assert_eq!(sum("1.1e4932", "1.1e4932"), None);
        assert!(LongDouble::parse(b"1.1e4932").is_some());
        assert!(LongDouble::parse(&[b'9'; 6000]).is_none());
    }
}
