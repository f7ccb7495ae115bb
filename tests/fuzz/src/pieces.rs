//! The same bytes in other segments.

/// Bytes of an input that say where the rest is split.
const CUTS: usize = 4;

/// Takes the cuts from the start of the input. Answers the rest in pieces of 1 to 64 bytes, the cuts used in turn.
#[must_use]
pub fn pieces(input: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let (cuts, bytes) = input.split_at_checked(CUTS)?;
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at(rest.len().min(1 + usize::from(cut % 64)));
        pieces.push(piece);
        rest = behind;
    }
    Some((bytes, pieces))
}
