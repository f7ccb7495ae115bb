//! Whole exchanges through the policy, as the gateway would drive it.
