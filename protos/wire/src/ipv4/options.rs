//! The options of a header, one by one (RFC 791 §3.1).

/// The end of the list; what follows is padding.
const END: u8 = 0;
/// Padding of one octet, without a length.
const NO_OPERATION: u8 = 1;
/// The bit of a type that says: every fragment carries this option.
pub(super) const COPIED: u8 = 0x80;

/// The options with type and length, without padding; ends at the first that runs over the end.
pub(super) fn iter(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        loop {
            match rest {
                [NO_OPERATION, after @ ..] => rest = after,
                // A length counts type and length too; less than that would never end.
                [kind, len, ..] if *kind != END && *len >= 2 => {
                    let (option, after) = rest.split_at_checked(usize::from(*len))?;
                    rest = after;
                    return Some(option);
                }
                _ => return None,
            }
        }
    })
}
