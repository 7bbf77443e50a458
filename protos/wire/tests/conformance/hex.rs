//! Octets as people write them.

/// The octets of hexadecimal digits with blanks between them.
#[track_caller]
pub fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> =
        hex.split_ascii_whitespace().flat_map(str::chars).map(|digit| digit.to_digit(16).expect("a digit")).collect();
    let pairs = digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("two digits"));
    pairs.collect()
}

/// A message whose checksum stands at octet 2, with it made right; `start` is the sum of its pseudo header.
pub fn summed(mut message: Vec<u8>, start: u32) -> Vec<u8> {
    message[2..4].fill(0);
    let mut sum = start;
    for pair in message.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[2..4].copy_from_slice(&(!u16::try_from(sum).expect("folded")).to_be_bytes());
    message
}
