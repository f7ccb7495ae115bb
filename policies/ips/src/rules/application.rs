//! Known holes and probes of the protected application, its neighbours, and other web applications.

use super::Category::ApplicationProbe as App;
use super::Severity::{Critical, Error, Warning};
use super::{Matcher, Rule, Targets, rule};

/// Deployment.aspx without a query, the open API of servers before 200.197.
pub const DEPLOYMENT_BARE: &str = "app-2";
/// Deployment.aspx with an installer token that is none.
pub const DEPLOYMENT_TOKEN: &str = "app-3";
/// A view state larger than pages make.
pub const VIEWSTATE_SIZE: &str = "app-4";
/// An uploaded file name that leaves its directory.
pub const ZIP_SLIP: &str = "app-8";
/// An uploaded file that the server would run.
pub const UPLOADED_PAGE: &str = "app-9";
/// A range near 2^64 (CVE-2015-1635).
pub const RANGE_OVERFLOW: &str = "app-15";

const INPUTS: Targets = Targets::INPUTS;

/// The rules of this category.
pub(super) const RULES: &[Rule] = &[
    rule(
        "app-1",
        App,
        Critical,
        Targets::PATH,
        Matcher::Any(&["/setupwizard.aspx*", "/setupwizard/*", "/setupwizard"]),
        "ScreenConnect's set-up page, also with path info (CVE-2024-1709)",
    ),
    rule(
        DEPLOYMENT_BARE,
        App,
        Critical,
        Targets::MESSAGE,
        Matcher::Message,
        "Deployment.aspx without parameters, the open API of servers before 200.197",
    ),
    rule(
        DEPLOYMENT_TOKEN,
        App,
        Critical,
        Targets::MESSAGE,
        Matcher::Message,
        "Deployment.aspx with a malformed or repeated installer token",
    ),
    rule(
        VIEWSTATE_SIZE,
        App,
        Error,
        Targets::MESSAGE,
        Matcher::Message,
        "A view state of more than 16 KiB, or one in a query (CVE-2025-3935)",
    ),
    rule("app-5", App, Critical, Targets::PARAMETERS, Matcher::Any(BINARY_FORMATTER), "Serialised .NET or Java objects"),
    rule("app-6", App, Critical, INPUTS, Matcher::Any(GADGETS), "A .NET type that runs code when it is deserialised"),
    rule("app-7", App, Critical, Targets::PATH.union(Targets::FILES), Matcher::Any(WEBSHELLS), "The name of a known web shell"),
    rule(
        ZIP_SLIP,
        App,
        Critical,
        Targets::FILES,
        Matcher::Message,
        "An uploaded file name that leaves its directory (CVE-2024-1708)",
    ),
    rule(
        UPLOADED_PAGE,
        App,
        Critical,
        Targets::FILES,
        Matcher::Message,
        "An uploaded file that the server would run: .aspx, .ashx, .php",
    ),
    rule(
        "app-10",
        App,
        Critical,
        Targets::PATH,
        Matcher::Sequence { steps: &[&["/app_extensions/*"], &[".aspx", ".asmx", ".cshtml"]], gap: 200 },
        "A page inside an extension's directory",
    ),
    rule(
        "app-11",
        App,
        Critical,
        Targets::PATH,
        Matcher::Any(&[
            "/trace.axd",
            "/elmah.axd*",
            "/errorlog.axd",
            "/glimpse.axd",
            "/iisadmpwd/*",
            "/server-status",
            "/server-info",
        ]),
        "Diagnostics pages of the server",
    ),
    rule(
        "app-12",
        App,
        Critical,
        Targets::PATH,
        Matcher::Any(&["::$data", "::$index_allocation", "/(s(*", "/*~1*", "~1*/.*"]),
        "IIS tricks: streams, short names, session ids in the path",
    ),
    rule("app-13", App, Critical, Targets::PATH, Matcher::Any(EXPLOITED_PATHS), "A path with a known exploit in another product"),
    rule("app-14", App, Error, Targets::PATH, Matcher::Any(OTHER_APPLICATIONS), "A path of an application that is not here"),
    rule(RANGE_OVERFLOW, App, Critical, Targets::MESSAGE, Matcher::Message, "A range that overflows 64 bits (CVE-2015-1635)"),
    rule(
        "app-16",
        App,
        Warning,
        Targets::PATH,
        Matcher::Any(&["/_vti_bin/*", "/_vti_pvt/*", "/_vti_inf.html", "/scripts/..*", "/msadc/*"]),
        "FrontPage and old IIS directories",
    ),
];

const BINARY_FORMATTER: &[&str] = &["aaeaaad/////*", "ro0abx*", "aced0005*"];
const GADGETS: &[&str] = &[
    "system.diagnostics.process*",
    "system.windows.data.objectdataprovider*",
    "objectdataprovider",
    "typeconfusedelegate",
    "textformattingrunproperties",
    "system.windows.markup.xamlreader",
    "system.security.principal.windowsidentity",
    "system.configuration.install.assemblyinstaller",
    "system.management.automation.psobject",
    "system.web.security.rolesprincipal",
    "activitysurrogateselector*",
    "losformatter",
    "org.apache.commons.collections*",
    "com.sun.rowset.jdbcrowsetimpl",
];
const WEBSHELLS: &[&str] = &[
    "/cmd.aspx",
    "/cmdasp.aspx",
    "/cmd.asp",
    "/shell.aspx",
    "/webshell.aspx",
    "/aspxspy*",
    "/aspx_shell*",
    "/supp0rt.aspx",
    "/regeorg*",
    "/tunnel.aspx",
    "/tunnel.ashx",
    "/neoreg*",
    "/godzilla.*",
    "/behinder.*",
    "/antsword.*",
    "/chopper.*",
    "/c99.php",
    "/r57.php",
    "/wso.php",
    "/b374k*",
    "/alfa.php",
    "/shell.php",
    "/shell.jsp",
    "/cmd.jsp",
];
const EXPLOITED_PATHS: &[&str] = &[
    "/vendor/phpunit/*",
    "/phpunit/*",
    "/_ignition/execute-solution",
    "/actuator/*",
    "/solr/admin/*",
    "/manager/html*",
    "/jenkins/script*",
    "/script/execute",
    "/boaform/*",
    "/cgi-bin/*",
    "/hudson/script*",
    "/goform/*",
    "/autodiscover/autodiscover.json*",
    "/ecp/y.js*",
    "/owa/auth/x.js*",
    "/mifs/.;/*",
    "/dana-na/*",
    "/remote/fgt_lang*",
    "/vpn/../vpns/*",
    "/tmui/login.jsp/*",
    "/geoserver/wfs*",
    "/struts2-showcase*",
    "/invoker/jmxinvokerservlet*",
    "/wls-wsat/*",
    "/_layouts/15/toolpane.aspx*",
    "/telescope/requests*",
    "/druid/index.html",
    "/human2.aspx",
    "/guestaccess.aspx",
];
const OTHER_APPLICATIONS: &[&str] = &[
    "/wp-login.php*",
    "/wp-admin*",
    "/wp-content/*",
    "/wp-includes/*",
    "/wp-json/*",
    "/xmlrpc.php",
    "/phpmyadmin*",
    "/pma/*",
    "/administrator/index.php",
    "/user/login.php",
    "/typo3/*",
    "/magento_version",
    "/joomla*",
    "/drupal*",
    "/config.php",
    "/info.php",
    "/phpinfo.php",
    "/adminer.php",
    "/setup.cgi",
    "/owa/*",
    "/ecp/*",
    "/jmx-console*",
    "/web-console/*",
];
