//! What inspecting a request costs: `cargo run --release -p ips --example cost`.
//!
//! Native numbers; in the gateway the same code runs as WebAssembly and pays for copying the head once.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use ips::config::Config;
use ips::inspect::Engine;
use ips::score::Tally;
use weir_sdk::testing::TestRequest;

const BROWSER: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36";
const ROUNDS: u32 = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    let started = Instant::now();
    let engine = Engine::new(Config::default().resolve()?);
    writeln!(out, "{:>9} us  configure", started.elapsed().as_micros())?;

    let page = browser("/automate/computers?page=2&sort=-name");
    let filter = browser("/cwa/api/v1/computers?condition=Name%20like%20%27%25bob%25%27%20and%20Status%20%3D%20%27Online%27");
    let attack = browser("/x?id=1%27%20union%20select%201,2--");
    let agent = TestRequest::post("/LabTech/agent.aspx?31=&272c1=", "application/x-www-form-urlencoded", 564)
        .header("user-agent", "LabTech Agent v250.204")
        .header("contentlength", "564");
    for (name, request) in [("page, 9 headers", &page), ("filter", &filter), ("attack", &attack), ("agent head", &agent)] {
        let head = request.view().head();
        writeln!(out, "{:>9} ns  {name}", time(|| engine.inspect_head(&head)))?;
    }

    let head = agent.view().head();
    let opaque = "31=YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo+AB/C".repeat(14);
    let soap = "<q><![CDATA[select * from computers where name like '%srv%']]></q>".repeat(120);
    let json = r#"{"subject":"printer on floor 2","body":"it doesn't print; the cable's fine (checked)"},"#.repeat(100);
    let bodies =
        [("form 574 B", "", opaque.as_str()), ("XML 8 KiB", "text/xml", &soap), ("JSON 8 KiB", "application/json", &json)];
    for (name, content_type, body) in bodies {
        let request = TestRequest::post("/LabTech/ControlCenter.asmx", content_type, body.len());
        let head = if content_type.is_empty() { head.clone() } else { request.view().head() };
        writeln!(out, "{:>9} ns  {name}", time(|| engine.inspect_body(&head, body.as_bytes(), true, Tally::default())))?;
    }
    hostile(&mut out, &engine)
}

fn hostile(out: &mut impl Write, engine: &Engine) -> Result<(), Box<dyn std::error::Error>> {
    let units = [
        "'",
        "' or ",
        "';",
        "'--",
        ".",
        "../",
        "${",
        "${a:-",
        "{{",
        "<",
        "<a ",
        "(",
        "or 1",
        "%25",
        "&#39;",
        "/*",
        "javascript:",
        " ",
        "|",
        "union ",
    ];
    let mut worst = (0, "");
    for unit in units {
        let text = unit.repeat(65536 / unit.len());
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "text/xml", "application/json"] {
            let request = TestRequest::post("/x", content_type, text.len());
            let head = request.view().head();
            let started = Instant::now();
            black_box(engine.inspect_body(&head, text.as_bytes(), true, Tally::default()));
            worst = worst.max((started.elapsed().as_micros(), unit));
        }
    }
    writeln!(out, "{:>9} us  worst of 64 KiB of one thing: {:?}", worst.0, worst.1)?;
    Ok(())
}

fn browser(target: &str) -> TestRequest {
    TestRequest::get(target)
        .header("host", "052d3c3287c38201.example.com")
        .header("user-agent", BROWSER)
        .header("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8")
        .header("accept-language", "en-US,en;q=0.5")
        .header("accept-encoding", "gzip, deflate, br, zstd")
        .header("referer", "https://052d3c3287c38201.example.com/automate/login")
        .header("cookie", "ASP.NET_SessionId=0pcz4e1h2wrzsgkyyvvt0g5x; theme=dark; ARRAffinity=4f0c1f5e9a")
        .header("connection", "keep-alive")
        .header("sec-fetch-mode", "navigate")
}

fn time<T>(mut call: impl FnMut() -> T) -> u128 {
    let started = Instant::now();
    for _ in 0..ROUNDS {
        black_box(call());
    }
    started.elapsed().as_nanos() / u128::from(ROUNDS)
}
