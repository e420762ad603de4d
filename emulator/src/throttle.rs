//! The documented limits of a vault: transactions per ten seconds, weighted by key.

use akv_wire::KeyType;
use parking_lot::Mutex;

/// One window, and how full it is.
pub struct Throttle {
    /// When the window began, in windows since 1970, and the sum of the shares it has taken.
    window: Mutex<(i64, f64)>,
    /// Shares that fit.
    capacity: f64,
}

/// What part of a vault's window a transaction takes.
#[derive(Clone, Copy)]
pub struct Share(f64);

/// Length of the window, seconds.
const WINDOW: i64 = 10;
/// How many vaults' worth of transactions a subscription has.
const SUBSCRIPTION: f64 = 5.0;

/// Key size in bits (0: any other key), then transactions per window: HSM create, HSM other,
/// software create, software other.
const LIMITS: &[(u32, f64, f64, f64, f64)] = &[
    (2048, 10.0, 2_000.0, 20.0, 4_000.0),
    (3072, 10.0, 500.0, 20.0, 1_000.0),
    (4096, 10.0, 250.0, 20.0, 500.0),
    (0, 10.0, 2_000.0, 20.0, 4_000.0),
];

impl Share {
    /// A transaction with neither a key nor a new secret: 4,000 of them fill a window.
    pub const OTHER: Self = Self(1.0 / 4_000.0);
    /// A new secret, or version of one.
    pub const SECRET: Self = Self(1.0 / 300.0);

    /// A transaction with a key of this kind; a release counts as a creation.
    pub fn of_key(kty: KeyType, bits: u32, creates: bool) -> Self {
        let row = LIMITS.iter().find(|row| row.0 == bits || row.0 == 0);
        let (_, hsm_create, hsm_other, create, other) = row.copied().unwrap_or(LIMITS[0]);
        Self(match (kty.is_hsm(), creates) {
            (true, true) => 1.0 / hsm_create,
            (true, false) => 1.0 / hsm_other,
            (false, true) => 1.0 / create,
            (false, false) => 1.0 / other,
        })
    }
}

impl Throttle {
    /// A vault's.
    pub fn of_vault() -> Self {
        Self { window: Mutex::default(), capacity: 1.0 }
    }

    /// A subscription's, which all its vaults share.
    pub fn of_subscription() -> Self {
        Self { window: Mutex::default(), capacity: SUBSCRIPTION }
    }

    /// Whether one more transaction fits into the window of `now`; it counts if so.
    pub fn admit(&self, now: i64, share: Share) -> bool {
        let mut window = self.window.lock();
        if window.0 != now / WINDOW {
            *window = (now / WINDOW, 0.0);
        }
        // The sum of the shares of all keys must not exceed the whole. Sums of thousands of
        // shares are off by less than a thousandth of the smallest.
        let fits = window.1 + share.0 <= self.capacity + Share::OTHER.0 / 1_000.0;
        if fits {
            window.1 += share.0;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_documented_number_fills_a_window() {
        for (bits, hsm_create, hsm_other, create, other) in LIMITS {
            for (kty, creates, most) in [
                (KeyType::RsaHsm, true, hsm_create),
                (KeyType::RsaHsm, false, hsm_other),
                (KeyType::Rsa, true, create),
                (KeyType::Rsa, false, other),
            ] {
                let throttle = Throttle::of_vault();
                let share = Share::of_key(kty, *bits, creates);
                let admitted = (0..5_000).filter(|_| throttle.admit(0, share)).count();
                assert_eq!(admitted as f64, *most, "{kty:?} {bits} {creates}");
            }
        }
        let throttle = Throttle::of_vault();
        assert_eq!((0..5_000).filter(|_| throttle.admit(0, Share::OTHER)).count(), 4_000);
        let throttle = Throttle::of_vault();
        assert_eq!((0..5_000).filter(|_| throttle.admit(0, Share::SECRET)).count(), 300);
        let throttle = Throttle::of_subscription();
        assert_eq!((0..25_000).filter(|_| throttle.admit(0, Share::OTHER)).count(), 20_000);
    }

    #[test]
    fn the_documented_mixture_fills_a_window_of_ten_seconds() {
        let throttle = Throttle::of_vault();
        let admit = |now, bits| throttle.admit(now, Share::of_key(KeyType::RsaHsm, bits, false));
        assert!((0..248).all(|_| admit(20, 4096)));
        assert!((0..16).all(|_| admit(25, 2048)));
        assert!(!admit(29, 2048));
        assert!(admit(30, 2048), "a new window");
    }
}
