use super::Shape;

#[test]
fn only_shapes_within_the_limits() {
    for (depth, draws) in [(0, 1), (9, 1), (1, 0), (1, 513)] {
        assert_eq!(Shape::new(depth, draws), None, "{depth} {draws}");
        let [high, low] = draws.to_be_bytes();
        assert_eq!(Shape::from_bytes([depth, high, low]), None);
    }
    assert_eq!(Shape::new(5, 32), Some(Shape::V1));
    assert_eq!(Shape::V1.slots_max(), 32_768);
    for shape in [Shape::V1, Shape::new(8, 512).unwrap()] {
        assert_eq!(Shape::from_bytes(shape.to_bytes()), Some(shape));
    }
}
