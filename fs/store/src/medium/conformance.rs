//! What every medium must do, as one callable suite.

use std::io::ErrorKind;

use super::{StorageMedium, read_exact_at, write_all_at};

/// Runs the suite on an empty medium; panics with the broken rule.
#[allow(clippy::unwrap_used)]
pub fn conformance(medium: &dyn StorageMedium) {
    names(medium);
    contents(medium);
    handles(medium);
    for name in medium.list().unwrap() {
        medium.remove(&name).unwrap();
    }
    medium.sync_dir().unwrap();
}

#[allow(clippy::unwrap_used)]
fn names(medium: &dyn StorageMedium) {
    assert_eq!(medium.open("absent").err().map(|e| e.kind()), Some(ErrorKind::NotFound));
    assert!(medium.remove("absent").is_err(), "an absent file cannot be removed");
    assert!(medium.rename("absent", "other").is_err(), "an absent file cannot be renamed");
    let a = medium.create("a").unwrap();
    assert_eq!(medium.create("a").err().map(|e| e.kind()), Some(ErrorKind::AlreadyExists));
    let b = medium.create("b").unwrap();
    write_all_at(&*a, b"from a", 0).unwrap();
    write_all_at(&*b, b"from b", 0).unwrap();
    medium.rename("a", "b").unwrap();
    medium.sync_dir().unwrap();
    assert_eq!(medium.list().unwrap(), vec!["b".to_owned()], "rename replaces");
    let mut bytes = [0; 6];
    read_exact_at(&*medium.open("b").unwrap(), &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"from a");
    medium.remove("b").unwrap();
    assert!(medium.list().unwrap().is_empty());
}

#[allow(clippy::unwrap_used)]
fn contents(medium: &dyn StorageMedium) {
    let file = medium.create("file").unwrap();
    assert_eq!(file.len().unwrap(), 0);
    let mut bytes = [0xaa; 8];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 0, "nothing is read from an empty file");
    write_all_at(&*file, b"tail", 4096).unwrap();
    assert_eq!(file.len().unwrap(), 4100);
    read_exact_at(&*file, &mut bytes, 4092).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0tail", "a gap reads as zeros");
    assert_eq!(file.read_at(&mut bytes, 4098).unwrap(), 2, "short at the end only");
    assert!(read_exact_at(&*file, &mut bytes, 4098).is_err());
    write_all_at(&*file, b"TA", 4096).unwrap();
    file.sync_data().unwrap();
    read_exact_at(&*file, &mut bytes, 4092).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0TAil");
    file.set_len(4098).unwrap();
    file.set_len(4100).unwrap();
    read_exact_at(&*file, &mut bytes, 4092).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0TA\0\0", "what was cut off comes back as zeros");
}

#[allow(clippy::unwrap_used)]
fn handles(medium: &dyn StorageMedium) {
    let one = medium.create("shared").unwrap();
    let two = medium.open("shared").unwrap();
    write_all_at(&*one, b"seen", 0).unwrap();
    let mut bytes = [0; 4];
    read_exact_at(&*two, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"seen", "handles of one file share its bytes");
    medium.remove("shared").unwrap();
    read_exact_at(&*two, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"seen", "an open handle outlives the name");
}
