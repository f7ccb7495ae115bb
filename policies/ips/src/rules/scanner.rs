//! Security scanners and attack tools.

use super::Category::Scanner;
use super::Severity::{Critical, Notice};
use super::{Matcher, Rule, Targets, rule};

/// The rules of this category.
pub(super) const RULES: &[Rule] = &[
    rule("scanner-1", Scanner, Critical, Targets::AGENT, Matcher::Any(INJECTORS), "An injection tool by its User-Agent"),
    rule("scanner-2", Scanner, Critical, Targets::AGENT, Matcher::Any(SCANNERS), "A vulnerability scanner by its User-Agent"),
    rule("scanner-3", Scanner, Critical, Targets::AGENT, Matcher::Any(FUZZERS), "A content discovery tool by its User-Agent"),
    rule("scanner-4", Scanner, Critical, Targets::AGENT, Matcher::Any(PORT_SCANNERS), "A port scanner by its User-Agent"),
    rule("scanner-5", Scanner, Notice, Targets::AGENT, Matcher::Any(SURVEYS), "An internet survey by its User-Agent"),
    rule(
        "scanner-6",
        Scanner,
        Critical,
        Targets::ALL.without(Targets::OPAQUE),
        Matcher::Any(CALLBACKS),
        "A host that scanners use to see calls back",
    ),
    rule(
        "scanner-7",
        Scanner,
        Critical,
        Targets::INPUTS,
        Matcher::Any(MARKERS),
        "A marker that a scanner leaves in its requests",
    ),
    rule("scanner-8", Scanner, Critical, Targets::PATH, Matcher::Any(PROBES), "A path that only scanners ask for"),
];

const INJECTORS: &[&str] = &[
    "sqlmap", "havij", "sqlninja", "bsqlbf", "jsql*", "sqlsus", "pangolin", "commix", "xsser", "xsstrike", "dalfox", "fimap",
    "nosqlmap", "ghauri", "tplmap",
];
const SCANNERS: &[&str] = &[
    "nikto",
    "nuclei",
    "nessus",
    "openvas",
    "greenbone",
    "acunetix",
    "netsparker",
    "invicti",
    "appscan",
    "w3af*",
    "arachni",
    "qualys*",
    "webinspect",
    "vega/*",
    "skipfish",
    "wapiti",
    "wpscan",
    "joomscan",
    "cmsmap",
    "whatweb",
    "jaeles",
    "zaproxy",
    "owasp zap*",
    "burpcollaborator*",
    "detectify",
    "metasploit",
    "grabber",
    "n-stealth",
    "jorgee",
    "zmeu",
    "morfeus",
    "dfind",
];
const FUZZERS: &[&str] = &[
    "dirbuster",
    "dirsearch",
    "gobuster",
    "feroxbuster",
    "fuzz faster u fool*",
    "ffuf",
    "dirb",
    "wfuzz",
    "patator",
    "hydra",
    "brutus",
    "webshag",
    "kiterunner",
    "rustbuster",
];
const PORT_SCANNERS: &[&str] =
    &["nmap scripting engine", "nmap", "masscan", "zgrab*", "zmap", "unicornscan", "naabu", "httpx - open-source*"];
const SURVEYS: &[&str] = &[
    "censysinspect*",
    "shodan",
    "expanse",
    "internet-measurement*",
    "netsystemsresearch",
    "l9explore",
    "l9tcpid",
    "leakix",
    "binaryedge",
    "paloaltonetworks*",
];
const CALLBACKS: &[&str] = &[
    ".oast.pro",
    ".oast.live",
    ".oast.site",
    ".oast.online",
    ".oast.fun",
    ".oast.me",
    ".interact.sh",
    ".interactsh.com",
    ".burpcollaborator.net",
    ".oastify.com",
    ".dnslog.cn",
    ".bxss.me",
    ".ceye.io",
    ".requestbin.net",
    ".canarytokens.com",
    ".r87.me",
    ".xss.ht",
];
const MARKERS: &[&str] = &[
    "acunetix_wvs*",
    "acu_test*",
    "netsparker(*",
    "r87.com",
    "appscan_*",
    "nessus_is_probing*",
    "<!--nuclei*",
    "wvstest*",
    "zapfuzz*",
];
const PROBES: &[&str] = &[
    "/nmaplowercheck*",
    "/nice ports*",
    "/trinity.txt*",
    "/nessus-check*",
    "/muieblackcat",
    "/w00tw00t*",
    "/acunetix*",
    "/sdk/nmap*",
    "/evox/about",
    "/hnap1",
    "/.nsf",
];
