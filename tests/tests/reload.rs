//! A changed configuration goes live without losing a request; a bad one changes nothing.

use serde_json::Value;
use weir_tests::load::Load;
use weir_tests::setup::site;
use weir_tests::{Answer, Gateway, LONG, Request, Setup, Upstream, eventually};

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

fn add_site(gateway: &Gateway, name: &str, origin: &Upstream) {
    let section = site(name, &[&format!("{name}.test")], &origin.url());
    gateway.rewrite(|text| format!("{text}\n{section}\n"));
}

#[test]
fn a_site_added_to_the_file_is_served_under_load() {
    let (old, new) = (Upstream::text("old"), Upstream::text("new"));
    let gateway = Setup::before(&old).start();
    let load = Load::start(gateway.plain(), 4, &Request::get("/"));
    eventually(LONG, "traffic flows", || load.done() > 100);
    assert_eq!(gateway.ask(&Request::get("/").host("added.test")).status, 404);
    add_site(&gateway, "added", &new);
    eventually(LONG, "the new site answers", || gateway.ask(&Request::get("/").host("added.test")).status == 200);
    assert_eq!(gateway.ask(&Request::get("/").host("added.test")).text(), "new");
    let report = load.finish();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}

#[test]
fn reload_by_request_answers_the_generation_now_live() {
    let (one, two) = (Upstream::text("one"), Upstream::text("two"));
    let gateway = Setup::before(&one).start();
    let before = json(&gateway.admin("POST /v1/reload"))["generation"].as_u64().unwrap();
    gateway.rewrite(|text| text.replace(&one.url(), &two.url()));
    let answer = gateway.admin("POST /v1/reload");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(json(&answer)["generation"].as_u64().unwrap() > before);
    assert_eq!(gateway.get("/").text(), "two", "at once, not a moment later");
}

#[test]
fn a_signal_reloads_too() {
    let (one, two) = (Upstream::text("one"), Upstream::text("two"));
    let gateway = Setup::before(&one).start();
    assert_eq!(gateway.get("/").text(), "one");
    gateway.rewrite(|text| text.replace(&one.url(), &two.url()));
    gateway.signal("HUP");
    eventually(LONG, "the new upstream answers", || gateway.get("/").text() == "two");
}

#[test]
fn a_bad_file_is_refused_with_all_its_mistakes_and_the_old_one_stays() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).start();
    let good = std::fs::read_to_string(gateway.config()).unwrap();
    gateway.rewrite(|text| format!("{}\nnonsense = 1\n", text.replace("upstream = \"origin\"", "upstream = \"orgin\"")));
    let answer = gateway.admin("POST /v1/reload");
    assert_eq!(answer.status, 422, "{}", answer.text());
    let errors = json(&answer)["errors"].to_string();
    assert!(errors.contains("orgin") && errors.contains("nonsense"), "both mistakes: {errors}");
    assert!(errors.contains("weir.toml"), "{errors}");
    assert_eq!(gateway.get("/").text(), "ok");
    gateway.rewrite(|_| good.clone());
    assert_eq!(gateway.admin("POST /v1/reload").status, 200);
    assert_eq!(gateway.get("/").text(), "ok");
}

#[test]
fn a_policy_can_be_added_changed_and_removed() {
    let origin = Upstream::text("ok");
    let plugin = std::fs::read(weir_tests::wasm::policy("agent-acl")).unwrap();
    let gateway = Setup::before(&origin).file("plugins/agent-acl.wasm", plugin).start();
    let policy = |model: &str| format!("\n[policy.acl]\nplugin = \"agent-acl\"\nconfig = {{ model = \"{model}\" }}\n");
    let plain = std::fs::read_to_string(gateway.config()).unwrap();
    let steps = [(Some("agent-only"), 403), (Some("all-traffic"), 200), (Some("agent-only"), 403), (None, 200)];
    for (model, status) in steps {
        gateway.rewrite(|_| match model {
            Some(model) => format!("{}{}", plain.replace("chain = []", "chain = [\"acl\"]"), policy(model)),
            None => plain.clone(),
        });
        let answer = gateway.admin("POST /v1/reload");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(gateway.get("/automate/").status, status, "{model:?}");
    }
}

#[test]
fn a_plugin_config_that_no_longer_fits_is_refused_by_name() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).policy("acl", "agent-acl", "config = { model = \"all-traffic\" }").start();
    gateway.rewrite(|text| text.replace("all-traffic", "everything"));
    let answer = gateway.admin("POST /v1/reload");
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.text().contains("everything") || answer.text().contains("model"), "{}", answer.text());
    assert_eq!(gateway.get("/automate/").status, 200);
}
