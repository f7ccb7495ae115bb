//! What users, agents and integrations send passes.

use crate::sample::{Sample, agent, check_passed, encode, form, get, json, post, query};

const BROWSER: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0";

fn all(samples: &[Sample]) {
    for sample in samples {
        check_passed(sample);
    }
}

/// Base64-like text as agents send it, percent-encoded or not.
fn opaque(length: usize, seed: u32) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(alphabet[(state >> 24) as usize % alphabet.len()])
    };
    (0..length).map(next).collect()
}

fn check_in(target: &str, length: usize, seed: u32) -> Sample {
    form(target, &format!("31={}==", opaque(length - 5, seed)))
        .with("user-agent", "LabTech Agent v250.204")
        .with("contentlength", &length.to_string())
}

#[test]
fn agents() {
    all(&[
        check_in("/LabTech/agent.aspx?31=&272c1=", 564, 1),
        check_in("/LabTech/agent.aspx?3p819=", 919, 2),
        check_in("/LABTECH/AGENT.ASPX?31=", 603, 3),
        check_in("/LabTech/agent.aspx?31=&252c1=", 571, 4).with("host", "203.0.113.10"),
        get("/Labtech/Agent.aspx"),
        get("/labtech/updates/LabtechUpdate_250.204.zip").with("connection", "close"),
        get("/LabTech/Transfer/installers/tool.bat")
            .with("user-agent", "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.4648"),
        Sample { method: "HEAD", ..get("/labtech/transfer/installers/Reader_en_install.exe") },
        Sample {
            headers: vec![
                ("transfer-encoding", "chunked".to_owned()),
                ("content-type", "application/x-www-form-urlencoded".to_owned()),
            ],
            ..check_in("/LabTech/agent.aspx?31=", 564, 5)
        },
        form("/LabTech/agent.aspx?31=", &opaque(564, 6)).with("contentlength", "10"),
    ]);
    for seed in 10..400 {
        check_passed(&check_in("/LabTech/agent.aspx?31=&272c1=", 919, seed));
        check_passed(&form("/LabTech/agent.aspx?31=", &opaque(603, seed)));
        check_passed(&form("/LabTech/agent.aspx?31=", &format!("31={}", encode(&opaque(300, seed)))));
    }
}

#[test]
fn disguised_paths_are_left_to_the_access_policy() {
    all(&[
        form("/LabTech/agent.aspx/../ControlCenter.asmx", "a=b"),
        form("/LabTech/agent.aspx%2f..%2fControlCenter.asmx", "a=b"),
        form("/LabTech/agent.aspx;/x", "a=b"),
        form("/LabTech\\ControlCenter.asmx", "a=b"),
        form("//LabTech//ControlCenter.asmx", "a=b"),
        form("/LabTech/ControlCenter.asmx/agent.aspx", "a=b"),
        form("/LabTech/./controlcenter.asmx.", "a=b"),
    ]);
}

#[test]
fn installers_and_technicians() {
    let call = "<Query><![CDATA[select * from computers where name like '%srv%']]></Query>".repeat(100);
    let envelope = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\"><soap:Body>{call}</soap:Body></soap:Envelope>"
    );
    all(&[
        get("/LabTech/Deployment.aspx?InstallerToken=0123456789abcdef0123456789abcdef").with("user-agent", "curl/8.5.0"),
        get("/LabTech/Deployment.aspx?Probe=1&installType=msi&MSILocations=1"),
        get("/LabTech/Deployment.aspx?LINUX=4&ID=146"),
        get("/LabTech/Service/LabTechRemoteAgent.msi"),
        post("/LabTech/ControlCenter.asmx", "text/xml; charset=utf-8", &envelope)
            .with("soapaction", "\"http://tempuri.org/Query\""),
        get("/WCC2/"),
        form(
            "/WCC2/Home/Login?ReturnUrl=%2fWCC2%2f",
            &format!("UserName=bob&Password={}&__VIEWSTATE={}", encode("x' or 1=1--"), opaque(900, 7)),
        ),
        get("/automate/login?authtoken=SECRET"),
        get("/LabTech/Updates/ControlCenterInstaller.exe"),
        post("/LabTech/ControlCenter.asmx", "text/xml", "<a><![CDATA[<!DOCTYPE html><p>mail</p>]]></a>"),
        post("/App_Extensions/0a1b/Service.ashx/GetSession", "application/json", "[\"x\"]"),
    ]);
}

#[test]
fn integrations() {
    let condition = encode("LastLoggedInUser like '%bob%' and Status = 'Online'");
    let command = r#"{"ComputerId":12,"Command":{"Id":2},"Parameters":["powershell -enc SQBFAFgA ; Get-ChildItem C:\\","cmd.exe /c whoami & ipconfig"]}"#;
    let bearer = "Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1In0.c2ln-_c";
    all(&[
        json("/cwa/api/v1/apitoken", r#"{"UserName":"u","Password":"p'--","TwoFactorPasscode":"123456"}"#)
            .with("clientid", "0d3c5a"),
        json("/cwa/api/v1/apitoken/refresh", r#""eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1In0.c2ln""#),
        get(&format!("/cwa/api/v1/computers?pagesize=1000&condition={condition}&orderby=Name%20asc"))
            .with("authorization", bearer),
        get(
            "/cwa/api/v1/computers?pagesize=1000&condition=LastLoggedInUser%20like%20'%25bob%25'%20and%20Status%20=%20'Online'&orderby=Name%20asc",
        ),
        json("/cwa/api/v1/Computers/12/CommandExecute", command),
        Sample { method: "DELETE", ..get("/cwa/api/v1/computers/12") },
        Sample {
            method: "PATCH",
            ..json("/cwa/api/v1/computers/12", r#"[{"op":"replace","path":"Comment","value":"moved to rack 4"}]"#)
        },
        get("/WCC2/api/Computers?$filter=Name%20eq%20%27PC1%27").with("authorization", "LTToken x"),
        Sample { method: "OPTIONS", ..get("/cwa/api/v1/computers") }
            .with("origin", "https://pub.example")
            .with("access-control-request-method", "POST"),
        Sample { method: "OPTIONS", ..get("/cwa/api/v1/computers") }.with("origin", "https://evil.example"),
        get("/authorize?redirect_uri=https%3A%2F%2Forg.example%2Fautomate%2Fcb&state=af0ifjsldkj&scope=openid%20profile"),
        json("/cwa/api/v1/settings", r#"{"apiUrl":"https:\/\/org.example\/cwa\/api\/v1"}"#),
        form("/saml/acs", &format!("SAMLResponse={}&RelayState=x", encode(&opaque(4000, 9)))).with("origin", "null"),
    ]);
}

#[test]
fn browsers() {
    all(&[
        get("/automate/computers?page=2&sort=-name")
            .with("user-agent", BROWSER)
            .with("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8")
            .with("accept-language", "en-US,en;q=0.5")
            .with("accept-encoding", "gzip, deflate, br, zstd")
            .with("referer", "https://pub.example/automate/login?ReturnUrl=%2Fautomate%2F&x=1")
            .with(
                "cookie",
                "ASP.NET_SessionId=0pcz4e1h; theme=dark; prefs=%7B%22cols%22%3A%5B%22name%22%2C%22os%22%5D%7D; _ga=GA1.2.1.2",
            )
            .with("sec-ch-ua", "\"Not/A)Brand\";v=\"8\", \"Chromium\";v=\"126\"")
            .with("range", "bytes=0-1023")
            .with("if-none-match", "W/\"6a8f-5\""),
        agent("curl/8.5.0"),
        agent("Wget/1.21.4"),
        agent("python-requests/2.31.0"),
        agent("Go-http-client/1.1"),
        agent("Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.4648"),
        agent("LabTech Agent v240.46"),
        agent("Mozilla/5.0 (X11; CrOS x86_64; Unicorn) Firefox/126.0"),
        get("/automate/").with("accept-language", "{en}").with("x-odd", "costs 5$"),
    ]);
}

#[test]
fn texts_that_only_resemble_attacks() {
    let texts = [
        "O'Brien",
        "O'Brien and Sons -- the manager",
        "the boys' and girls' room",
        "select a date from the list",
        "Please select one or more from the list where you are",
        "European Union members selected",
        "drop the table off; update the ticket when done",
        "sleep (8 hours) and rest",
        "order by phone, order by 5 pm",
        "rock & roll",
        "Tips & more",
        "AT&T; cat is fine",
        "a < b and b > c",
        "if x<y then one=2",
        "2 > 1 or not",
        "https://pub.example/automate/login?id=5&type=x&cat=3",
        "/automate/computers?sort=name&dir=asc",
        "C:\\Program Files\\LabTech\\file.txt",
        "100% sure; 50%",
        "the script is called on=line",
        "Use JavaScript: it is good",
        "email@example.com",
        "price in $ {net}",
        "{{ name }}",
        "${name}",
        "1+1=2",
        "x--y",
        "a -- b",
        "C# and F#",
        "item #5 'quoted' (draft)",
        "it's 5 o'clock; don't wait",
        "images/a.png",
        "version 1..2",
        "...and so on",
        "wait... / what",
        "/* a comment */ text",
        "union station, select seating",
        "Insert into slot A; delete the old one",
        "xml <note>hello</note>",
        "the id; a hostname",
        "R&D | sales | support",
        "naïve café — “quotes”",
        "日本語テキスト",
    ];
    for text in texts {
        all(&[
            query(text),
            form("/WCC2/Search/search", &format!("q={}", encode(text))),
            json("/cwa/api/v1/tickets", &serde_json::json!({ "subject": text, "n": 1 }).to_string()),
        ]);
    }
    all(&[
        json("/cwa/api/v1/tickets", r#"{"body":"-- \nkind regards\nO'Brien","tags":["--","a;b"]}"#),
        get("/x?filter[name]=a&cols[]=b&ctl00$Main$x=1&_=1700000000"),
        get("/x?url=https%3A%2F%2Fpub.example%2Fa%2Fb%3Fc%3Dd"),
        get("/x?q=50%25+off"),
        get("/files/report%20(final)%20v1.2.pdf"),
        get("/automate/assets/main.0a1b2c.js"),
        post("/upload", "application/octet-stream", [0x4d, 0x5a, 0x90, 0, 3, b'<', 0, b'$', 0xff]),
        post(
            "/upload",
            "multipart/form-data; boundary=b",
            "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"report.sql\"\r\n\r\n' or 1=1; drop table x\r\n--b--",
        ),
        form("/Login.aspx", &format!("__VIEWSTATE={}&user=bob", encode(&opaque(20_000, 3)))),
        json("/x", &format!("{{\"a\":\"{}\"}}", "long text; with 'quotes' ".repeat(4000))),
    ]);
}
