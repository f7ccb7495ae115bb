//! Bytes and header fields as people write them.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Bytes: a text, or `{ hex = "00ff" }` for what is no text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Data(pub Vec<u8>);

/// Header fields in order, names in lower case: a table (`{ accept = "*/*", x-many = ["a", "b"] }`) or lines (`["Accept: */*"]`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Headers(pub Vec<(String, Vec<u8>)>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a text, or { hex = \"00ff\" }")]
enum Written {
    Text(String),
    Bytes { hex: String },
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a table of headers, or a list of \"Name: value\"")]
enum Fields {
    Table(BTreeMap<String, Values>),
    Lines(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a header's value, or a list of values")]
enum Values {
    One(Data),
    Many(Vec<Data>),
}

impl TryFrom<Written> for Data {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let hex = match written {
            Written::Text(text) => return Ok(Self(text.into_bytes())),
            Written::Bytes { hex } => hex,
        };
        let wrong = || format!("hex = {hex:?}: two digits a byte");
        let digits: Option<Vec<u8>> =
            hex.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
        let digits = digits.filter(|digits| digits.len() % 2 == 0).ok_or_else(wrong)?;
        let bytes = digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit));
        Ok(Self(bytes.collect()))
    }
}

impl TryFrom<Fields> for Headers {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let mut headers = Vec::new();
        match fields {
            Fields::Table(table) => {
                for (name, values) in table {
                    let values = match values {
                        Values::One(value) => vec![value],
                        Values::Many(values) => values,
                    };
                    headers.extend(values.into_iter().map(|value| (name.to_ascii_lowercase(), value.0)));
                }
            }
            Fields::Lines(lines) => {
                for line in lines {
                    let (name, value) = line.split_once(':').ok_or_else(|| format!("{line:?} is no header: \"Name: value\""))?;
                    headers.push((name.trim().to_ascii_lowercase(), value.trim().as_bytes().to_vec()));
                }
            }
        }
        Ok(Self(headers))
    }
}

/// Bytes as a person reads them.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 200;
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().count() > MOST => {
            format!("{:?}… ({} bytes)", text.chars().take(MOST).collect::<String>(), bytes.len())
        }
        Ok(text) => format!("{text:?}"),
        Err(_) => {
            let hex: String = bytes.iter().take(MOST / 2).map(|byte| format!("{byte:02x}")).collect();
            format!("hex {hex} ({} bytes)", bytes.len())
        }
    }
}
