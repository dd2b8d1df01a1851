//! Checks that this crate's version of edLeak's formula gives the results that edLeak itself gave, for nine
//! slices of 35 sites and for one longer series.

use std::collections::BTreeMap;
use std::path::Path;

use edleak_model::classify::{Model, Verdict, judge};
use edleak_model::regression::leak_factor;
use edleak_model::series::{Point, Series, SeriesBuilder};
use serde_json::Value;

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/edleak").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("the golden file is in the repository"))
        .expect("is JSON")
}

fn series(live_bytes: &[u64]) -> Series {
    let mut builder = SeriesBuilder::new();
    for &live_bytes in live_bytes {
        builder.push(Point { live_bytes, ..Point::default() });
    }
    builder.finish()
}

/// Live bytes of every "allocer" (edLeak's word for a site), from its first slice on.
fn recorded() -> BTreeMap<u64, Vec<u64>> {
    let mut curves: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for slice in golden("edleak_leaker.json")["slice"].as_array().expect("slices") {
        for item in slice.as_array().expect("items") {
            let (id, bytes) = (item["alc"].as_u64().expect("id"), item["mem"].as_u64().expect("bytes"));
            curves.entry(id).or_default().push(bytes);
        }
    }
    curves
}

#[test]
fn every_leak_factor_equals_edleaks_own() {
    let recorded = recorded();
    let reference = golden("edleak_leak_factors.json");
    let reference = reference.as_array().expect("a list");
    assert_eq!(reference.len(), 36);
    for expected in reference {
        let curve = match expected["id"].as_u64() {
            Some(id) => recorded[&id].clone(),
            None => expected["series"]
                .as_array()
                .expect("series")
                .iter()
                .map(|b| b.as_u64().expect("bytes"))
                .collect(),
        };
        let series = series(&curve);
        let factor = leak_factor(series.sums().expect("a builder keeps them"));
        let id = &expected["id"];
        assert_eq!(Some(curve.len() as u64), expected["n"].as_u64(), "{id}");
        for (term, coef) in factor.coef.iter().enumerate() {
            let reference = expected["coef"][term].as_f64().expect("a number");
            assert!((coef - reference).abs() < 1e-6, "{id}: c{term} is {coef}, edLeak's {reference}");
        }
        assert_eq!(Some(factor.leak_bytes), expected["leak_bytes"].as_i64(), "{id}");
        assert_eq!(Some(factor.class.name()), expected["class"].as_str(), "{id}");
        assert_eq!(Some(factor.min_bytes as f64), expected["min_bytes"].as_f64(), "{id}");
        assert_eq!(Some(factor.max_bytes as f64), expected["max_bytes"].as_f64(), "{id}");
    }
}

#[test]
fn the_verdict_of_edleaks_model_is_its_class() {
    let leaks: Vec<u64> = recorded()
        .iter()
        .filter(|(_, curve)| judge(&series(curve), 1.0, Model::LeakFactor).verdict == Verdict::Leak)
        .map(|(&id, _)| id)
        .collect();
    assert_eq!(leaks, [11, 12, 13, 15, 16, 17, 34]);
}
