//! The file tree of the container image: complete, and both names start from it as the user that the image runs as.

use crate::support::{program, source_root};
use std::path::Path;
use std::process::{Command, Output};

fn lay_out(folder: &Path) {
    let script = source_root().join("scripts/image-root");
    let output = Command::new(script).arg(folder).arg(program()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a program of the tree as user 65532 with the tree as its root: by chroot as root, else in a user namespace.
fn run_inside(folder: &Path, arguments: &[&str]) -> Output {
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut command = if is_root {
        let mut command = Command::new("chroot");
        command.arg("--userspec=65532:65532").arg("--groups=").arg(folder);
        command
    } else {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-user=65532", "--map-group=65532", "--root"]).arg(folder);
        command
    };
    command.args(arguments).output().unwrap()
}

#[test]
fn both_names_start_from_the_tree_under_uid_65532() {
    let folder = tempfile::tempdir().unwrap();
    // The folder of a test is private, the image's root is not.
    let opened = Command::new("chmod").arg("755").arg(folder.path()).status().unwrap();
    assert!(opened.success());
    lay_out(folder.path());
    // A second time over the first, as a build in a used folder does.
    lay_out(folder.path());

    let epp = run_inside(folder.path(), &["/app/epp", "--help"]);
    let help = String::from_utf8_lossy(&epp.stdout).into_owned();
    assert!(epp.status.success(), "{help} {}", String::from_utf8_lossy(&epp.stderr));
    assert!(help.contains("--grpc-port"), "{help}");

    let sidecar = run_inside(folder.path(), &["/app/pd-sidecar", "--help"]);
    let said = String::from_utf8_lossy(&[sidecar.stdout, sidecar.stderr].concat()).into_owned();
    assert!(said.contains("sidecar"), "{said}");
}

#[test]
fn a_folder_with_other_things_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("precious"), "data").unwrap();
    let script = source_root().join("scripts/image-root");
    let output = Command::new(script).arg(folder.path()).arg(program()).output().unwrap();
    assert!(!output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
