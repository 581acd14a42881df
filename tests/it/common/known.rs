//! The one table of purposeful differences, as the tests use it.

use plyfs::compare::known::{Difference, KNOWN_DIFFERENCES, page};

/// The entry of that name; a test that names none that exists is wrong.
pub fn difference(id: &str) -> &'static Difference {
    KNOWN_DIFFERENCES
        .iter()
        .find(|d| d.id == id)
        .unwrap_or_else(|| panic!("{id} is not in KNOWN_DIFFERENCES"))
}

#[test]
fn differences_page_is_printed_from_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/differences.md");
    if std::env::var_os("PLYFS_TEST_BLESS").is_some() {
        std::fs::write(path, page()).expect("docs/differences.md");
    }
    let text = std::fs::read_to_string(path).expect("docs/differences.md");
    assert_eq!(
        text,
        page(),
        "run PLYFS_TEST_BLESS=1 cargo test --test it differences"
    );
}
