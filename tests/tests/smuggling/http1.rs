use super::mutations;
use super::stage::{DELIVERIES, Delivery, play};
use super::table::cases;

#[test]
fn every_row_has_its_verdict_however_its_bytes_arrive() {
    play(&cases(), &DELIVERIES);
}

#[test]
fn no_byte_in_any_place_makes_two_readings() {
    play(&mutations::cases(), &[Delivery::Whole, Delivery::Lines]);
}
