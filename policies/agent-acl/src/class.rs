//! Which part of the application a path belongs to.

use serde::Deserialize;
use weir_sdk::Quirks;

/// What kind of traffic a request is; the value of the tag `class`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Check-ins and updates of agents.
    Agent,
    /// Files that agents and scripts fetch.
    Transfer,
    /// Installers and uninstallers.
    Deployment,
    /// Consoles: the thick client and the web interfaces.
    Technician,
    /// REST interfaces.
    Api,
    /// Everything else, ambiguous paths included.
    Other,
}

/// A path's class, and what is special about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) class: Class,
    pub(crate) resource: Resource,
}

/// What a path names, as far as a rule depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// `agent.aspx`.
    CheckIn,
    /// `deployment.aspx`.
    DeploymentPage,
    /// A static file.
    File,
    /// Anything else with one reading.
    Page,
    /// A path that another server might read as a different one.
    Ambiguous,
    /// An ambiguous path whose real target cannot be known, or that hides `deployment.aspx`.
    Disguised,
}

/// A value for each class.
#[derive(Debug)]
pub(crate) struct PerClass<T> {
    pub(crate) agent: T,
    pub(crate) transfer: T,
    pub(crate) deployment: T,
    pub(crate) technician: T,
    pub(crate) api: T,
    pub(crate) other: T,
}

/// Quirks after which a path may name anything: decoded again, decoded otherwise, or outside the site.
const OPAQUE: Quirks =
    Quirks(Quirks::DOUBLE_ENCODING.0 | Quirks::CONTROL.0 | Quirks::NOT_UTF8.0 | Quirks::ABOVE_ROOT.0 | Quirks::MALFORMED.0);

/// Extensions that the server executes wherever the file lies.
const SCRIPTS: [&str; 8] = ["asp", "aspx", "asmx", "ashx", "axd", "cshtml", "svc", "soap"];

impl Class {
    /// Every class.
    pub const ALL: [Self; 6] = [Self::Agent, Self::Transfer, Self::Deployment, Self::Technician, Self::Api, Self::Other];

    /// The name in configuration, tag and log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Transfer => "transfer",
            Self::Deployment => "deployment",
            Self::Technician => "technician",
            Self::Api => "api",
            Self::Other => "other",
        }
    }
}

impl<T> PerClass<T> {
    /// Asks `value` for each class.
    pub(crate) fn from_fn(mut value: impl FnMut(Class) -> T) -> Self {
        Self {
            agent: value(Class::Agent),
            transfer: value(Class::Transfer),
            deployment: value(Class::Deployment),
            technician: value(Class::Technician),
            api: value(Class::Api),
            other: value(Class::Other),
        }
    }

    pub(crate) const fn of(&self, class: Class) -> &T {
        match class {
            Class::Agent => &self.agent,
            Class::Transfer => &self.transfer,
            Class::Deployment => &self.deployment,
            Class::Technician => &self.technician,
            Class::Api => &self.api,
            Class::Other => &self.other,
        }
    }
}

/// Classes a normalised path, ignoring case as the server does.
pub(crate) fn classify(path: &str, quirks: Quirks) -> Target {
    if !quirks.is_empty() {
        return ambiguous(path, quirks);
    }
    let (class, resource) = if let Some(rest) = after(path, "/labtech/") {
        return labtech(path, rest);
    } else if let Some(rest) = after(path, "/cwa").or_else(|| after(path, "/wcc2")) {
        (if is_below(rest, "/api") { Class::Api } else { Class::Technician }, Resource::Page)
    } else if path == "/" || after(path, "/automate").is_some() || after(path, "/legacyccasmx").is_some() {
        (Class::Technician, Resource::Page)
    } else if path.eq_ignore_ascii_case("/labuninstall.exe") {
        (Class::Deployment, Resource::File)
    } else if path.is_ascii() {
        (Class::Other, Resource::Page)
    } else {
        return ambiguous(path, quirks);
    };
    Target { class, resource }
}

/// Everything below `/labtech/`; `rest` is what follows it.
fn labtech(path: &str, rest: &str) -> Target {
    let is = |name: &str| rest.eq_ignore_ascii_case(name);
    let (class, resource) = if is("agent.aspx") {
        (Class::Agent, Resource::CheckIn)
    } else if let Some(file) = after(rest, "transfer/") {
        if runs_script(file) { (Class::Other, Resource::Page) } else { (Class::Transfer, Resource::File) }
    } else if after(rest, "controlcenter.asmx").is_some() {
        (Class::Technician, Resource::Page)
    } else if is("deployment.aspx") {
        (Class::Deployment, Resource::DeploymentPage)
    } else if is("service/labtechremoteagent.msi") || is("service/labuninstall.exe") || is("labuninstall.exe") {
        (Class::Deployment, Resource::File)
    } else if has_path_info(rest) || !rest.is_ascii() {
        return ambiguous(path, Quirks::default());
    } else if let Some(file) = after(rest, "updates/") {
        if is_update_archive(file) { (Class::Agent, Resource::File) } else { (Class::Technician, Resource::Page) }
    } else {
        (Class::Other, Resource::Page)
    };
    Target { class, resource }
}

fn ambiguous(path: &str, quirks: Quirks) -> Target {
    const HIDDEN: &[u8] = b"deployment.aspx";
    let hides_deployment = || path.as_bytes().windows(HIDDEN.len()).any(|window| window.eq_ignore_ascii_case(HIDDEN));
    let disguised = quirks.intersects(OPAQUE) || hides_deployment();
    Target { class: Class::Other, resource: if disguised { Resource::Disguised } else { Resource::Ambiguous } }
}

/// `labtechupdate_<version>.zip`
fn is_update_archive(file: &str) -> bool {
    after(file, "labtechupdate_").is_some_and(|rest| {
        let (version, extension) = rest.rsplit_once('.').unwrap_or_default();
        !version.is_empty()
            && extension.eq_ignore_ascii_case("zip")
            && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    })
}

/// Whether a directory of the path looks like a file: the server would run that file and give it the rest.
fn has_path_info(rest: &str) -> bool {
    rest.rsplit('/').skip(1).any(|directory| directory.contains('.'))
}

fn runs_script(file: &str) -> bool {
    file.split('/')
        .filter_map(|segment| segment.rsplit_once('.'))
        .any(|(_, extension)| SCRIPTS.iter().any(|script| extension.eq_ignore_ascii_case(script)))
}

/// What follows a prefix.
fn after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Whether the path is a directory or something in it.
fn is_below(path: &str, directory: &str) -> bool {
    after(path, directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, class: Class, resource: Resource) {
        let path = weir_path::normalise(raw.as_bytes());
        assert_eq!(classify(&path.text, path.quirks), Target { class, resource }, "{raw}");
    }

    #[test]
    fn paths_have_the_class_of_the_traffic_catalogue() {
        use Resource::{CheckIn, DeploymentPage, File, Page};
        for (raw, class, resource) in [
            ("/LabTech/agent.aspx", Class::Agent, CheckIn),
            ("/LABTECH/AGENT.ASPX", Class::Agent, CheckIn),
            ("/labtech/%61gent.aspx", Class::Agent, CheckIn),
            ("/labtech/updates/LabtechUpdate_250.204.zip", Class::Agent, File),
            ("/labtech/updates/LabtechUpdate_.zip", Class::Technician, Page),
            ("/labtech/updates/LabtechUpdate_1/2.zip", Class::Technician, Page),
            ("/labtech/updates/LabtechUpdate_250.204.exe", Class::Technician, Page),
            ("/LabTech/Updates/ControlCenterInstaller.exe", Class::Technician, Page),
            ("/LabTech/Updates/ltnuke.zip", Class::Technician, Page),
            ("/LabTech/Transfer/OS/Windows10/v1.2/image%20(1).zip", Class::Transfer, File),
            ("/LabTech/Transfer/caf%C3%A9.pdf", Class::Transfer, File),
            ("/LabTech/Transfer/installers/tool.bat", Class::Transfer, File),
            ("/LabTech/Transfer/shell.aspx", Class::Other, Page),
            ("/LabTech/Transfer/shell.ASHX/tool.bat", Class::Other, Page),
            ("/LabTech/Transfer", Class::Other, Page),
            ("/LabTech/Deployment.aspx", Class::Deployment, DeploymentPage),
            ("/LabTech/Service/LabTechRemoteAgent.msi", Class::Deployment, File),
            ("/LabTech/Service/LabUninstall.exe", Class::Deployment, File),
            ("/LabUninstall.exe", Class::Deployment, File),
            ("/LabTech/ControlCenter.asmx", Class::Technician, Page),
            ("/LabTech/controlcenter.asmx/js", Class::Technician, Page),
            ("/LabTech/ControlCenter.asmx/agent.aspx", Class::Technician, Page),
            ("/", Class::Technician, Page),
            ("/WCC2/Home/Login", Class::Technician, Page),
            ("/wcc2/API/APIToken", Class::Api, Page),
            ("/automate/login", Class::Technician, Page),
            ("/cwa/api/v1/computers", Class::Api, Page),
            ("/cwa/apiary", Class::Technician, Page),
            ("/cwa", Class::Technician, Page),
            ("/LabTech", Class::Other, Page),
            ("/LabTech/agent2.aspx", Class::Other, Page),
            ("/LabTech/sub/agent.aspx", Class::Other, Page),
            ("/agent.aspx", Class::Other, Page),
            ("/SetupWizard.aspx", Class::Other, Page),
            ("/Services/PageService.ashx/GetPage", Class::Other, Page),
        ] {
            check(raw, class, resource);
        }
    }

    #[test]
    fn a_path_with_two_readings_is_never_an_agent() {
        for raw in [
            "/LabTech/agent.aspx/../ControlCenter.asmx",
            "/LabTech/ControlCenter.asmx/../agent.aspx",
            "/LabTech/agent.aspx%2f..%2fControlCenter.asmx",
            "/LabTech/agent.aspx;/x",
            "/LabTech/agent.aspx;x",
            "/LabTech/agent.aspx/x",
            "/LabTech/agent.aspx/",
            "/LabTech\\ControlCenter.asmx",
            "/LabTech\\agent.aspx",
            "//LabTech//agent.aspx",
            "/LabTech/./agent.aspx.",
            "/LabTech/agent.aspx%20",
            "/LabTech/agent.aspx::$DATA",
            "/LabTech/updates/labtechupdate_1.zip/x",
            "/\u{212a}",
        ] {
            check(raw, Class::Other, Resource::Ambiguous);
        }
    }

    #[test]
    fn a_path_that_hides_its_target_is_disguised() {
        for raw in [
            "/LabTech/./Deployment.aspx",
            "/LabTech/DEPLOYMENT.aspx/x",
            "/x/..%5clabtech%2fdeployment.aspx",
            "/LabTech/agent.aspx%00",
            "/LabTech/%2561gent.aspx",
            "/LabTech/Transfer/..%c0%af..%c0%afweb.config",
            "/LabTech/Transfer/..%2f..%2f..%2fweb.config",
            "/LabTech/%u0061gent.aspx",
        ] {
            check(raw, Class::Other, Resource::Disguised);
        }
    }

    #[test]
    fn names_are_those_of_the_configuration() {
        for class in Class::ALL {
            let parsed: Class = serde_json::from_str(&format!("\"{}\"", class.name())).unwrap();
            assert_eq!(parsed, class);
            assert_eq!(*PerClass::from_fn(|class| class).of(class), class);
        }
    }
}
