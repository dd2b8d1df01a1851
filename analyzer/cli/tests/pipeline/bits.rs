//! Tests every copy of a trace in which a single bit is flipped. edleak-analyze must not panic and must not
//! report growth that the program did not have.

use crate::traces::{Scratch, leaker};
use edleak_analysis::judge::judge_recording;
use edleak_analysis::load::Input;
use edleak_analysis::site::SiteLabel;
use edleak_format::Trace;
use edleak_model::classify::Model;

/// The labels of the sites that leak, and the number of leaked bytes of the site that leaks most.
fn leaks(bytes: Vec<u8>) -> Option<(Vec<SiteLabel>, f64)> {
    let trace = Trace::from_bytes(bytes).ok()?;
    let recording = Input::Trace(Box::new(trace));
    let analysis = judge_recording("trace".to_owned(), &recording, Model::Growth);
    let leaks = analysis.sites.iter().filter(|site| site.is_leak());
    let most = leaks.clone().map(|site| site.judgement.leak_bytes as f64).fold(0.0, f64::max);
    Some((leaks.map(|site| site.label.clone()).collect(), most))
}

#[test]
fn a_flipped_bit_never_invents_growth() {
    let scratch = Scratch::new();
    let whole = std::fs::read(leaker().write(&scratch.path("t.edl"))).expect("it was just written");
    let (leaking, most) = leaks(whole.clone()).expect("it is sound");
    assert_eq!(leaking.len(), 1);
    let mut lost = 0;
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        // If the damaged file is no longer recognized as a trace, edleak-analyze refuses the file and so
        // reports no growth.
        let Some((found, bytes)) = leaks(damaged) else { continue };
        lost += usize::from(found.is_empty());
        assert!(found.is_empty() || found == leaking, "bit {bit}: {found:?}");
        assert!(bytes <= most, "bit {bit}: {bytes} bytes of {most}");
    }
    // In this trace, one block contains all slices. If the flipped bit is in the block with the slices,
    // edleak loses all slices; otherwise edleak loses no slice. So edleak must still find the leak in
    // more than half of the damaged traces.
    assert!(lost < whole.len() * 8 / 2, "{lost}");
}
