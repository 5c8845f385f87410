use super::BoundAudits;

/// The formula's own words: the best of a fine grid of fractions is no better, and nearly as good.
#[test]
fn the_best_difference_is_the_best() {
    for (openings, draws) in [(1, 1), (24, 32), (512, 320), (512, 32_000), (5_000, 100)] {
        let bound = BoundAudits { openings, draws };
        for kept in [0.0, 0.3, 0.9, 0.99, 0.999] {
            let passes = |d: f64| (1.0 - d).powf(openings as f64) * (kept + d).powf(draws as f64);
            let grid = (0..=10_000).map(|i| passes((1.0 - kept) * f64::from(i) / 10_000.0));
            let best = grid.fold(0.0, f64::max);
            let claimed = bound.unnoticed(kept);
            assert!(claimed >= best * (1.0 - 1e-9), "{openings} {draws} {kept}: {claimed} < {best}");
            assert!(claimed <= best * 1.02 + 1e-12, "{openings} {draws} {kept}: {claimed} > {best}");
        }
    }
}

#[test]
fn what_was_never_bound_is_never_noticed() {
    let unbound = BoundAudits { openings: 0, draws: 1_000_000 };
    assert_eq!(unbound.unnoticed(0.0), 1.0);
    assert_eq!(unbound.differing_at_most(1e-6), 1.0);
    assert_eq!(BoundAudits { openings: 10, draws: 0 }.unnoticed(0.5), 1.0);
}

#[test]
fn numbers_of_the_documentation() {
    let month = BoundAudits { openings: 512, draws: 32 * 30 };
    assert!(month.unnoticed(0.99) < 0.006 && month.unnoticed(0.99) > 0.005);
    assert!(month.unnoticed(0.9) < 1e-23);
    assert!((BoundAudits { openings: 512, draws: 0 }.differing_at_most(1e-3) - 0.0134).abs() < 1e-4);
    assert_eq!(month.unnoticed(1.0), 1.0);
    assert_eq!(month.unnoticed(f64::NAN), 1.0);
}
