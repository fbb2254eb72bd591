//! The demo, small: a node is killed in the middle, and no byte differs.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::{run, stderr, stdout};

#[test]
fn no_byte_differs_although_a_node_is_killed_in_the_middle() {
    let folder = tempfile::tempdir().expect("a folder");
    let tree = folder.path().join("tree");
    for i in 0_usize..600 {
        let file = tree.join(format!("{}/{}/file {i}.txt", i % 7, i % 3));
        std::fs::create_dir_all(file.parent().expect("has one")).expect("made");
        std::fs::write(file, format!("{i} ").repeat(i * 37 % 9000)).expect("written");
    }
    let output = run(&["demo", tree.to_str().expect("a plain path"), "--workers", "8"]);
    let (told, progress) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{told}\n{progress}");
    let last = told.lines().last().expect("a last line");
    assert!(last.starts_with("demo: files=600 bytes=") && last.contains(" mismatches=0 ") && last.contains(" longest_pause_ms="), "{last}");
    assert!(progress.contains("with SIGKILL") && progress.contains("upload: 100%"), "{progress}");
    assert!(told.contains("node 1, node 2, node 3 of "), "three copies: {told}");
}
