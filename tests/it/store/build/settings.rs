//! The steps that change the config.

use serde_json::json;

use super::super::bench::Bench;

#[test]
fn every_instruction_is_in_the_config() {
    let bench = Bench::with_base();
    bench.write("context/f", "");
    let text = r#"# syntax=docker/dockerfile:1
ARG GLOBAL=g
FROM base
ARG GLOBAL
ARG VERSION=1 \
    OTHER=${VERSION:-none}
ENV A=$VERSION B="two words" C=${GLOBAL}
ENV OLD form of it
LABEL name="$A" other='$A'
MAINTAINER me
USER www:staff
WORKDIR /srv/$A
WORKDIR ${B%% *}
EXPOSE 80 443/udp $VERSION
VOLUME ["/data", "/more"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --retries=2 CMD ["check", "it"]
SHELL ["/bin/sh", "-ec"]
CMD run $A
ENTRYPOINT ["entry"]
ONBUILD COPY f /triggered-$X
ONBUILD ENV Y=1
"#;
    bench
        .build(text, &["--build-arg", "VERSION=9", "--build-arg", "UNUSED=1"])
        .ok();
    let whole = bench.config("made");
    let config = &whole["config"];
    let env: Vec<&str> = config["Env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_str().unwrap())
        .collect();
    for expected in ["A=9", "B=two words", "C=g", "OLD=form of it"] {
        assert!(env.contains(&expected), "{expected} is not in {env:?}");
    }
    assert!(env.iter().any(|entry| entry.starts_with("PATH=")));
    assert_eq!(config["Labels"], json!({ "name": "9", "other": "$A" }));
    assert_eq!(whole["author"], "me");
    assert_eq!(config["User"], "www:staff");
    assert_eq!(config["WorkingDir"], "/srv/9/two");
    assert_eq!(
        config["ExposedPorts"],
        json!({ "80/tcp": {}, "443/udp": {}, "9/tcp": {} })
    );
    assert_eq!(config["Volumes"], json!({ "/data": {}, "/more": {} }));
    assert_eq!(config["StopSignal"], "SIGINT");
    assert_eq!(config["Healthcheck"]["Test"], json!(["CMD", "check", "it"]));
    assert_eq!(config["Cmd"], json!(["/bin/sh", "-ec", "run $A"]));
    assert_eq!(config["Entrypoint"], json!(["entry"]));
    assert_eq!(config["OnBuild"], json!(["COPY f /triggered-$X", "ENV Y=1"]));
    let history = whole["history"].as_array().unwrap();
    let layers = history
        .iter()
        .filter(|entry| entry.get("empty_layer").is_none())
        .count();
    assert_eq!(layers, whole["rootfs"]["diff_ids"].as_array().unwrap().len());
    assert!(
        history
            .iter()
            .any(|entry| entry["created_by"] == "/bin/sh -c #(nop) USER www:staff")
    );

    // The triggers run in the build on it, and are gone then.
    bench.plyfs(&["image", "tag", "made", "parent"]).ok();
    bench.build("FROM parent\nENTRYPOINT [\"other\"]\n", &[]).ok();
    let child = bench.config("made");
    assert_eq!(child["config"].get("OnBuild"), None);
    assert_eq!(
        child["config"].get("Cmd"),
        None,
        "an inherited CMD is not the arguments of another ENTRYPOINT"
    );
    assert!(child["config"]["Env"].as_array().unwrap().contains(&json!("Y=1")));
    assert!(bench.root("made").join("triggered-").exists());
    bench.check();
}

#[test]
fn variables_where_docker_has_them_and_where_not() {
    let bench = Bench::with_base();
    bench.write("context/v2/f", "");
    let text = "ARG V=2\nFROM base\nENV X=[$V]\nARG V\nENV Y=[$V] Z=[${NONE:-d}] Q=\\$V\nCOPY v$V/f /f$V\nCMD [\"$V\"]\nENV V=env\nLABEL l=$V\n";
    bench.build(text, &[]).ok();
    let config = &bench.config("made")["config"];
    let env = config["Env"].to_string();
    for expected in ["X=[]", "Y=[2]", "Z=[d]", "Q=$V", "V=env"] {
        assert!(env.contains(&format!("\"{expected}\"")), "{expected}: {env}");
    }
    assert!(bench.root("made").join("f2").exists());
    assert_eq!(config["Cmd"], json!(["$V"]));
    assert_eq!(config["Labels"]["l"], "env");
    bench
        .build("FROM base\nENV A=\"${B:?must be given}\"\n", &[])
        .fails(&[":2:", "must be given"]);
    bench
        .build("FROM ${NONE}\n", &[])
        .fails(&[":1: FROM ${NONE}: names nothing"]);
}

#[test]
fn an_arg_nobody_asks_for_is_told() {
    let bench = Bench::with_base();
    let said = bench.build(
        "FROM base\nARG USED\n",
        &["--build-arg", "USED=1", "--build-arg", "OTHER=1"],
    );
    assert!(
        said.err.contains("OTHER") && !said.err.contains("USED"),
        "{}",
        said.err
    );
    said.ok();
}
