//! That docs/builder.md has a test for each of its points, and that the tests it names are there.

use std::collections::BTreeSet;
use std::path::Path;

/// How many points there are.
const POINTS: std::ops::RangeInclusive<u32> = 1..=13;

/// Number of the point and the tests it names, for each row of the table.
fn rows() -> Vec<(u32, Vec<&'static str>)> {
    let page = include_str!("../../../docs/builder.md");
    page.lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.split(" | ").collect();
            let number = cells.first()?.strip_prefix("| ")?.parse().ok()?;
            let tests = cells.last()?.split('`').skip(1).step_by(2).collect();
            Some((number, tests))
        })
        .collect()
}

/// Whether `path`, as cargo prints it, is a test in tests/it or in src.
fn is_a_test(path: &str) -> bool {
    let (module, name) = path.rsplit_once("::").unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["tests/it", "src"].iter().any(|within| {
        let module = root.join(within).join(module.replace("::", "/"));
        let files = [module.with_extension("rs"), module.join("mod.rs")];
        files
            .iter()
            .filter_map(|file| std::fs::read_to_string(file).ok())
            .any(|text| {
                let after = |at: usize| text[at..].starts_with(&format!("fn {name}("));
                text.match_indices("#[test]").any(|(at, _)| {
                    let rest = text[at..].find("fn ").map(|found| at + found);
                    rest.is_some_and(after)
                })
            })
    })
}

#[test]
fn every_point_has_tests_that_are_there() {
    let rows = rows();
    let numbers: Vec<_> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, POINTS.collect::<Vec<_>>());
    for (number, tests) in &rows {
        assert!(!tests.is_empty(), "point {number} names no test");
    }
    let named: BTreeSet<_> = rows.iter().flat_map(|(_, tests)| tests).collect();
    let missing: Vec<_> = named.iter().filter(|test| !is_a_test(test)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    assert!(!is_a_test("builder::coverage::not_there"));
}
