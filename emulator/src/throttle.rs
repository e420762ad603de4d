//! The documented limits of a vault: transactions per ten seconds, weighted by key.

use akv_wire::KeyType;
use parking_lot::Mutex;

/// One window, and how full it is.
#[derive(Default)]
pub struct Throttle {
    window: Mutex<(i64, f64)>,
}

/// Length of the window, seconds.
const WINDOW: i64 = 10;

/// Key size in bits (0: any other key), then transactions per window: HSM create, HSM other,
/// software create, software other.
const LIMITS: &[(u32, f64, f64, f64, f64)] = &[
    (2048, 10.0, 2_000.0, 20.0, 4_000.0),
    (3072, 10.0, 500.0, 20.0, 1_000.0),
    (4096, 10.0, 250.0, 20.0, 500.0),
    (0, 10.0, 2_000.0, 20.0, 4_000.0),
];

impl Throttle {
    /// Whether one more transaction fits into the window of `now`; it counts if so.
    pub fn admit(&self, now: i64, kty: KeyType, bits: u32, creates: bool) -> bool {
        let row = LIMITS.iter().find(|row| row.0 == bits || row.0 == 0);
        let (_, hsm_create, hsm_other, create, other) = row.copied().unwrap_or(LIMITS[0]);
        let limit = match (kty.is_hsm(), creates) {
            (true, true) => hsm_create,
            (true, false) => hsm_other,
            (false, true) => create,
            (false, false) => other,
        };
        let mut window = self.window.lock();
        if window.0 != now / WINDOW {
            *window = (now / WINDOW, 0.0);
        }
        // The sum of the shares of all keys must not exceed the whole.
        let fits = window.1 + 1.0 / limit <= 1.0 + f64::EPSILON * limit;
        if fits {
            window.1 += 1.0 / limit;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_mixture_fills_a_window() {
        let throttle = Throttle::default();
        let admit = |bits| throttle.admit(25, KeyType::RsaHsm, bits, false);
        assert!((0..248).all(|_| admit(4096)));
        assert!((0..16).all(|_| admit(2048)));
        assert!(!admit(2048));
        assert!(throttle.admit(30, KeyType::RsaHsm, 2048, false), "a new window");
    }

    #[test]
    fn making_keys_is_dear() {
        let throttle = Throttle::default();
        let admit = || throttle.admit(0, KeyType::Ec, 0, true);
        assert_eq!((0..25).filter(|_| admit()).count(), 20);
    }
}
