//! curl with HTTP/1.0, 1.1 and 2.

use std::fs;

use weir_tests::{Scratch, tool};

use crate::origin::{self, FILE, GZIP, GZIPPED};
use crate::stage::{Stage, noise};

const VERSIONS: [&str; 3] = ["--http1.0", "--http1.1", "--http2"];

#[test]
fn what_people_do_with_it_works_in_every_version() {
    if !tool::has("curl") {
        return;
    }
    let origin = origin::site();
    let stage = Stage::guarded(&origin.url());
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    for (version, number) in VERSIONS.into_iter().zip(["1", "1.1", "2"]) {
        let url = |path: &str| stage.https(path);
        let status = "%{http_code} %{http_version} %{size_download}";
        let plain = [stage.http("/text"), url("/text")];
        for text in &plain {
            assert_eq!(stage.curl_text(&[version, text]), "a page of text");
        }
        assert_eq!(stage.curl_text(&[version, "-o", "/dev/null", "-w", status, &url("/text")]), format!("200 {number} 14"));

        let head = stage.curl_text(&[version, "--head", &url("/file")]);
        assert!(head.to_lowercase().contains("content-length: 5000\r\n"), "{version}: {head}");
        assert_eq!(stage.curl_text(&[version, "-w", "%{http_code}", &url("/204")]), "204", "{version}");
        let same = stage.curl_text(&[version, "-i", "-H", "if-none-match: \"v1\"", &url("/304")]).to_lowercase();
        assert!(same.contains(" 304") && same.contains("etag: \"v1\"\r\n"), "{version}: {same}");

        assert_eq!(stage.curl_text(&[version, "--compressed", &url("/gzip")]), GZIPPED);
        assert_eq!(stage.curl(&[version, "--raw", "-H", "accept-encoding: gzip", &url("/gzip")]), GZIP);

        assert_eq!(stage.curl(&[version, "--range", "10-19", &url("/file")]), &origin::file()[10..20]);
        let half = path(&format!("half{version}"));
        fs::write(&half, &origin::file()[..2000]).unwrap();
        let resumed = stage.curl_text(&[version, "-C", "-", "-o", &half, "-w", "%{http_code} %{size_download}", &url("/file")]);
        assert_eq!((resumed.as_str(), fs::read(&half).unwrap().len()), ("206 3000", FILE), "{version}");
        assert!(fs::read(&half).unwrap() == origin::file(), "{version}");

        assert_eq!(stage.curl_text(&[version, "--data", "a=b", &url("/form")]), "a=b");
        assert_eq!(stage.curl_text(&[version, "-X", "DELETE", "-w", "%{http_code}", &url("/gone")]), "200");
        assert_eq!(stage.curl_text(&[version, &url("/early")]), "final", "{version}: interim answers");
    }
}

#[test]
fn trailers_are_shown_and_uploads_come_back() {
    if !tool::has("curl") {
        return;
    }
    let origin = origin::site();
    let stage = Stage::guarded(&origin.url());
    for version in ["--http1.1", "--http2"] {
        let shown = stage.curl_text(&[version, "-D", "-", "-H", "te: trailers", &stage.https("/trailers")]);
        assert!(shown.contains("body") && shown.contains("x-sum: abc=\r\n"), "{version}: {shown}");
    }
    let output = stage.curl_text(&[
        "--http1.1",
        "--verbose",
        "--stderr",
        "-",
        "--data-binary",
        "once",
        "-H",
        "expect: 100-continue",
        &stage.https("/e"),
    ]);
    assert!(output.contains("HTTP/1.1 100 Continue") && output.contains("once"), "{output}");
}

#[test]
fn eight_mebibytes_come_back_unchanged() {
    if !tool::has("curl") {
        return;
    }
    let stage = Stage::plain(&origin::mirror());
    let (scratch, sent) = (Scratch::new(), noise(8 << 20));
    let file = scratch.write("sent", &sent).display().to_string();
    let body = format!("@{file}");
    for version in VERSIONS {
        for target in ["/chunked", "/length"] {
            // curl expects 100-continue of a body of this size.
            let back = stage.curl(&[version, "--data-binary", &body, &stage.https(target)]);
            assert!(back == sent, "{version} {target}: {} bytes", back.len());
        }
    }
    for version in ["--http1.1", "--http2"] {
        let back = stage.curl(&[version, "-T", &file, "-H", "transfer-encoding: chunked", &stage.https("/chunked")]);
        assert!(back == sent, "{version} in chunks: {} bytes", back.len());
    }
}
