//! The model against the file system that the tests lie on: what it says is what Linux does.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn the_model_says_what_linux_does(calls in history(100)) {
        // Permissions are root's, and the folder is on a disk: not every tmpfs keeps user attributes.
        if !nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        let base = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let dir = tempfile::tempdir_in(base).unwrap();
        let (mut model, mut real) = (model::Model::default(), real::Real::new(dir.path().to_owned()));
        run(&calls, &mut model, &mut real).map_err(TestCaseError::fail)?;
    }
}
