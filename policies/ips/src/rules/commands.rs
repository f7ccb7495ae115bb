//! Operating system commands, code and templates.

use super::Category::CommandInjection as Rce;
use super::Severity::{Critical, Error};
use super::shell::{on_new_line, separated, substituted, template};
use super::{Find, Matcher, Rule, Targets, rule};
use crate::bytes::Classes;

/// Where a technician would not write about commands.
const NOT_BODY: Targets = Targets::INPUTS.without(Targets::BODY);

/// The rules of this category.
pub(super) const RULES: &[Rule] = &[
    rule("rce-1", Rce, Critical, Targets::INPUTS, check(SEPARATORS, separated), "A command behind ; | or &"),
    rule("rce-2", Rce, Critical, Targets::INPUTS, check(SUBSTITUTION, substituted), "A command in `..` or $(..)"),
    rule(
        "rce-3",
        Rce,
        Critical,
        Targets::QUERY.union(Targets::COOKIE),
        check(Classes::ALL, on_new_line),
        "A command on a line of its own",
    ),
    rule(
        "rce-4",
        Rce,
        Critical,
        Targets::INPUTS,
        Matcher::Any(SHELL_TRICKS),
        "Shell syntax that hides spaces: ${IFS}, {cat,/etc}",
    ),
    rule("rce-5", Rce, Critical, NOT_BODY, Matcher::Any(SHELLS), "A shell or interpreter by name or path"),
    rule("rce-6", Rce, Error, Targets::BODY, Matcher::Any(SHELLS), "A shell or interpreter named in a body"),
    rule("rce-7", Rce, Critical, NOT_BODY, Matcher::Any(POWERSHELL), "PowerShell that loads or runs code"),
    rule("rce-8", Rce, Error, Targets::BODY, Matcher::Any(POWERSHELL), "PowerShell that loads or runs code, in a body"),
    rule("rce-9", Rce, Critical, Targets::INPUTS, Matcher::Any(WINDOWS_TOOLS), "Windows tools used to fetch and start programs"),
    rule("rce-10", Rce, Critical, Targets::INPUTS, Matcher::Any(REVERSE_SHELLS), "A shell connected to a socket"),
    rule(
        "rce-11",
        Rce,
        Critical,
        Targets::ALL.without(Targets::OPAQUE),
        Matcher::Any(&["() {*", "(){*"]),
        "A function definition for bash (Shellshock)",
    ),
    rule(
        "rce-12",
        Rce,
        Critical,
        Targets::INPUTS,
        check(Classes::BRACE.union(Classes::ANGLE), template),
        "A template expression: {{7*7}}, <%= %>",
    ),
    rule("rce-13", Rce, Critical, Targets::INPUTS, Matcher::Any(PHP), "PHP code and its request variables"),
    rule("rce-14", Rce, Critical, Targets::INPUTS, Matcher::Any(JAVA), "Java, OGNL and Spring expressions"),
    rule("rce-15", Rce, Critical, Targets::INPUTS, Matcher::Any(SCRIPTING), "Node and Python code that starts programs"),
    rule("rce-16", Rce, Critical, Targets::INPUTS, Matcher::Any(ASP), "ASP and ASP.NET page code"),
];

const SEPARATORS: Classes = Classes::SEMICOLON.union(Classes::PIPE).union(Classes::AMPERSAND);
const SUBSTITUTION: Classes = Classes::BACKTICK.union(Classes::DOLLAR);

const SHELL_TRICKS: &[&str] = &["${ifs*", "$ifs*", "{cat,*", "{ls,*", "{id,*", "{wget,*", "{curl,*", "{echo,*", "$@/*", "/???/*"];
const SHELLS: &[&str] = &[
    "/bin/sh",
    "/bin/bash",
    "/bin/dash",
    "/bin/zsh",
    "/bin/cat",
    "/bin/ls",
    "/bin/nc",
    "/usr/bin/*",
    "cmd.exe /c*",
    "cmd.exe /k*",
    "cmd /c*",
    "cmd.exe",
    "powershell.exe",
    "powershell -*",
    "powershell.exe -*",
    "pwsh -*",
];
const POWERSHELL: &[&str] = &[
    "invoke-expression",
    "invoke-webrequest",
    "invoke-mimikatz",
    "invoke-shellcode",
    "iex(*",
    "iex (new-object*",
    "downloadstring(*",
    "downloadfile(*",
    "-encodedcommand",
    "frombase64string(*",
    "new-object net.webclient",
    "new-object system.net.webclient",
    "new-object system.net.sockets*",
    "set-executionpolicy bypass",
    "-executionpolicy bypass",
    "-ep bypass",
    "add-mppreference",
    "set-mppreference",
];
const WINDOWS_TOOLS: &[&str] = &[
    "certutil -urlcache*",
    "certutil.exe -urlcache*",
    "certutil -decode",
    "bitsadmin /transfer",
    "regsvr32 /s",
    "mshta http*",
    "mshta.exe http*",
    "rundll32 javascript*",
    "wmic process call create",
    "net user /add",
    "net localgroup administrators",
    "reg save hklm*",
    "vssadmin delete",
    "schtasks /create",
];
const REVERSE_SHELLS: &[&str] = &[
    "/dev/tcp/*",
    "/dev/udp/*",
    "nc -e",
    "nc -c",
    "ncat -e",
    "nc.exe -e",
    "bash -i",
    "sh -i",
    "mkfifo /tmp*",
    "python -c",
    "python3 -c",
    "perl -e",
    "php -r",
    "ruby -rsocket",
    "socat exec:*",
    "socket.socket(",
    "pty.spawn(",
];
const PHP: &[&str] = &[
    "<?php*",
    "<?=*",
    "shell_exec(",
    "passthru(",
    "phpinfo(",
    "proc_open(",
    "base64_decode($*",
    "eval($_*",
    "assert($_*",
    "system($_*",
    "$_get[*",
    "$_post[*",
    "$_request[*",
    "auto_prepend_file",
    "allow_url_include",
];
const JAVA: &[&str] = &[
    "class.module.classloader*",
    "class.classloader*",
    "java.lang.runtime",
    "java.lang.processbuilder",
    "java.lang.system",
    "getruntime(",
    "#_memberaccess",
    "ognl.ognlcontext",
    "@ognl.*",
    "t(java.lang*",
    "@java.lang*",
    "javax.script.scriptengine*",
    "freemarker.template.utility.execute",
    "#context[*",
    "redirect:${*",
];
const SCRIPTING: &[&str] = &[
    "require('child_process*",
    "require(\"child_process*",
    "child_process.exec*",
    "process.mainmodule",
    "global.process.*",
    "__import__(",
    "os.system(",
    "os.popen(",
    "subprocess.popen",
    "subprocess.call",
    "subprocess.check_output",
    "__class__.__*",
    "__mro__",
    "__subclasses__",
    "__globals__",
    "__builtins__",
    "_$$nd_func$$_*",
];
const ASP: &[&str] = &[
    "<%@ page*",
    "<%@page*",
    "<%@ webhandler*",
    "<%@webhandler*",
    "<%@ webservice*",
    "<%eval*",
    "<% eval*",
    "<%execute*",
    "eval request(*",
    "execute(request*",
    "eval(request*",
    "wscript.shell",
    "server.createobject(*",
    "<!--#exec*",
    "<!--#include*",
    "runat=\"server\"",
    "runat=server",
];

const fn check(needs: Classes, find: Find) -> Matcher {
    Matcher::Check { needs, find }
}
