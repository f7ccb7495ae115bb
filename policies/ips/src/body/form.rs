//! `application/x-www-form-urlencoded`

use super::Piece;
use crate::decode::Reading;
use crate::head::parameters;

/// Names and values of a form.
pub(super) fn pieces(body: &[u8], take: &mut impl FnMut(Piece<'_>)) {
    for (name, value) in parameters(body) {
        take(Piece::Name(name, Reading::Form));
        take(Piece::Value(name, value, Reading::Form));
    }
}
