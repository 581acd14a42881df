//! The results as JUnit XML, for a CI server.

use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite, XmlString};

use super::report::Report;
use crate::cli::Failure;

/// One suite; a test case for each program, or for each thing that was compared of a command.
pub(super) fn xml(report: &Report) -> Result<Vec<u8>, Failure> {
    let suite_name = format!("{} against {}", report.b, report.a);
    let mut suite = TestSuite::new(suite_name.as_str());
    suite.set_time(Duration::from_secs_f64(report.seconds));
    for check in &report.checks {
        let status = match (check.result, &check.difference) {
            ("passed", _) => TestCaseStatus::success(),
            (_, Some(signature)) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(signature.as_str()).set_type("difference");
                let shown = report
                    .differences
                    .iter()
                    .find(|shown| shown.signature == *signature);
                if let Some(shown) = shown {
                    let script = shown.script.as_deref().unwrap_or_default();
                    status.set_description(XmlString::new(format!("{}\n\n{script}", shown.text)));
                }
                status
            }
            _ => TestCaseStatus::skipped(),
        };
        let mut case = TestCase::new(check.name.as_str(), status);
        case.set_classname("plyfs.compare");
        case.set_time(Duration::from_secs_f64(check.seconds));
        suite.add_test_case(case);
    }
    let mut all = quick_junit::Report::new("plyfs compare");
    all.set_time(Duration::from_secs_f64(report.seconds));
    all.add_test_suite(suite);
    let mut text = Vec::new();
    all.serialize(&mut text)
        .map_err(|e| Failure::Failed(format!("cannot write JUnit XML: {e}")))?;
    Ok(text)
}
