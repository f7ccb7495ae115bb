//! Whole requests against the policy, natively.

mod attacks;
mod configuration;
mod ordinary;
mod sample;
