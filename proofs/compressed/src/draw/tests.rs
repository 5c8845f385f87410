use super::*;

fn root(n: u64) -> SetRoot {
    SetRoot(Fr::from(n))
}

#[test]
fn an_audit_is_bound_to_its_shape_its_set_and_its_fresh_bytes() {
    let shape = Shape::new(2, 4).unwrap();
    let audit = Audit::new(shape, &root(1), &[1; 32]);
    let other = Shape::new(2, 5).unwrap();
    for twin in [
        Audit::new(other, &root(1), &[1; 32]),
        Audit::new(shape, &root(2), &[1; 32]),
        Audit::new(shape, &root(1), &[2; 32]),
    ] {
        assert_ne!(twin.public_inputs()[1], audit.public_inputs()[1]);
    }
    assert_eq!(audit.public_inputs()[0], root(1).to_bytes());
    assert_eq!(audit.public_inputs()[1][31] & 0xc0, 0);
}

/// Pinned: an auditor in another language must find the same leaves.
#[test]
fn draws_are_the_pinned_ones() {
    let audit = Audit::new(Shape::new(2, 4).unwrap(), &root(1), &[1; 32]);
    let seed: String = audit.public_inputs()[1].iter().map(|byte| format!("{byte:02x}")).collect();
    let leaves: Vec<u64> = draws(&audit, 1_000_003).iter().map(|draw| draw.leaf).collect();
    assert_eq!(seed, "bc6b4c8b84112b60789b56ef3520ec532fb4309b4bef7367eb33ab6e49437c24");
    assert_eq!(leaves, [595_665, 537_687, 720_230, 471_268]);
}

#[test]
fn draws_are_within_the_set_and_everywhere_in_it() {
    let audit = Audit::new(Shape::new(2, 512).unwrap(), &root(1), &[3; 32]);
    for total in [1, 2, 10, (1 << 48) - 1] {
        let draws = draws(&audit, total);
        assert_eq!(draws.len(), 512);
        assert!(draws.iter().all(|draw| draw.leaf < total));
        // Each tenth is met 51 times on average; fewer than 20 or more than 100 times is one in 10^6.
        let tenth =
            |n: u64| draws.iter().filter(|d| d.leaf as u128 * 10 / total as u128 == n as u128).count();
        assert!(total < 10 || (0..10).all(|n| (20..100).contains(&tenth(n))), "{total}");
    }
}
