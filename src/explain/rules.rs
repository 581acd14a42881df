//! The rules of `docs/kernel-rules.md`, and where on that page they stand.

use serde::{Deserialize, Serialize};

/// A rule, and its place in the documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// `K84`
    pub number: String,
    /// `docs/kernel-rules.md#6-create-link-remove`
    pub page: String,
}

/// The first number of each section after the one named.
const SECTIONS: [(u32, &str); 14] = [
    (1, "1-mounting"),
    (20, "2-lookup"),
    (40, "3-attributes"),
    (50, "4-listings"),
    (60, "5-copy-up"),
    (80, "6-create-link-remove"),
    (90, "7-rename"),
    (100, "8-extended-attributes"),
    (110, "9-open-files"),
    (120, "10-durability"),
    (130, "11-permissions"),
    (140, "12-interchange"),
    (150, "13-what-fuse-adds"),
    (1000, ""),
];

/// The rules with these numbers.
pub(super) fn rules(numbers: &[u32]) -> Vec<Rule> {
    numbers.iter().map(|number| rule(*number)).collect()
}

fn rule(number: u32) -> Rule {
    let before = SECTIONS.iter().rev().find(|(first, _)| *first <= number);
    let section = before.map_or("", |(_, section)| section);
    Rule {
        number: format!("K{number}"),
        page: format!("docs/kernel-rules.md#{section}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every rule of the page, with the anchor of the heading it stands under.
    fn on_the_page() -> Vec<(u32, String)> {
        let page = include_str!("../../docs/kernel-rules.md");
        let mut anchor = String::new();
        let mut found = Vec::new();
        for line in page.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                let kept = |c: &char| c.is_alphanumeric() || matches!(*c, ' ' | '-');
                anchor = heading.to_lowercase().chars().filter(kept).collect::<String>();
                anchor = anchor.replace(' ', "-");
            }
            let number = line.strip_prefix("| K").and_then(|rest| rest.split(' ').next());
            if let Some(number) = number.and_then(|text| text.parse().ok()) {
                found.push((number, anchor.clone()));
            }
        }
        found
    }

    #[test]
    fn every_rule_is_where_it_is_said_to_be() {
        let page = on_the_page();
        assert!(page.len() > 80, "{} rules found", page.len());
        for (number, anchor) in page {
            assert_eq!(
                rule(number).page,
                format!("docs/kernel-rules.md#{anchor}"),
                "K{number}"
            );
        }
    }

    #[test]
    fn every_rule_cited_exists() {
        let page = on_the_page();
        let mut cited = 0;
        for source in [
            include_str!("why.rs"),
            include_str!("told.rs"),
            include_str!("walk.rs"),
        ] {
            for call in source.split("rules(&[").skip(1) {
                let list = call.split(']').next().unwrap();
                for number in list.split(',').filter_map(|text| text.trim().parse::<u32>().ok()) {
                    cited += 1;
                    assert!(page.iter().any(|(known, _)| *known == number), "K{number}");
                }
            }
        }
        assert!(cited > 20, "{cited} citations found");
    }
}
