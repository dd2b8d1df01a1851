//! JSON: labels of sites, and frames of stacks.

use edleak_analysis::frame::{GENERATED_NAME, SiteFrame};
use edleak_analysis::site::SiteLabel;
use serde::Serialize;

#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum LabelJson<'a> {
    Number(u64),
    Text(&'a str),
}

#[derive(Serialize)]
pub(crate) struct FrameJson<'a> {
    address: String,
    module: Option<&'a str>,
    build_id: Option<&'a str>,
    offset: Option<String>,
    function: Option<&'a str>,
    file: Option<&'a str>,
    line: u32,
    inlined: bool,
}

impl<'a> From<&'a SiteLabel> for LabelJson<'a> {
    fn from(label: &'a SiteLabel) -> Self {
        match label {
            SiteLabel::Number(number) => Self::Number(*number),
            SiteLabel::Text(text) => Self::Text(text),
        }
    }
}

impl<'a> FrameJson<'a> {
    pub(crate) fn of(frame: SiteFrame<'a>) -> Self {
        let address = frame.address;
        Self {
            address: format!("{:#x}", address.address),
            module: address.module.as_deref(),
            build_id: address.module.is_some().then_some(address.build_id.as_str()),
            offset: address.offset.map(|offset| format!("{offset:#x}")),
            function: frame.function().or(address.is_generated.then_some(GENERATED_NAME)),
            file: frame.frame.and_then(|frame| frame.file.as_deref()),
            line: frame.frame.map_or(0, |frame| frame.line),
            inlined: frame.frame.is_some_and(|frame| frame.is_inlined),
        }
    }
}
