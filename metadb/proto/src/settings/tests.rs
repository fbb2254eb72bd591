//! The registry is sound, the most special scope wins, and what can't be used does no harm.

use super::registry::{DEFINITIONS, SERVICE_S3, TENANT_ACCESS, TENANT_WEIGHT};
use super::*;
use proptest::prelude::*;

fn record(name: &str, scope: &Scope, value: &str) -> v1::SettingRecord {
    v1::SettingRecord { name: name.into(), scope: Some(scope.to_proto()), value: value.into(), ..v1::SettingRecord::default() }
}

fn labels() -> Labels {
    Labels { data_centre: Some("fra".into()), pod: Some("p1".into()), host_group: Some("ssd".into()) }
}

#[test]
fn every_definition_is_whole() {
    assert!(super::registry::defaults_have_their_types().iter().all(|(_, fits)| *fits));
    for (index, definition) in DEFINITIONS.iter().enumerate() {
        let name = definition.name;
        assert_eq!(definition.index, index, "{name}");
        assert!(name.split('.').count() >= 2 && name.chars().all(|c| c.is_ascii_lowercase() || ".0123456789_".contains(c)), "{name}");
        assert!(definition.description.trim().len() > 20 && definition.description.trim().ends_with('.'), "{name}");
        assert_eq!(definition.parse(&definition.default.to_string()), Ok(definition.default), "{name}: its default is out of its bounds");
        assert!(DEFINITIONS.iter().filter(|other| other.name == name).count() == 1, "{name} is defined twice");
    }
}

#[test]
fn what_is_refused_is_told_with_field_limit_and_value() {
    let refused = TENANT_WEIGHT.definition.parse("0").expect_err("too small");
    assert_eq!(refused, Error::invalid("tenant.weight", "1 to 10000", "\"0\""));
    assert!(matches!(TENANT_WEIGHT.definition.parse("-1"), Err(Error::Invalid { .. })));
    assert!(matches!(TENANT_ACCESS.definition.parse("off"), Err(Error::Invalid { limit, .. }) if limit == "on, read_only, suspended"));
    let Err(Error::Invalid { field, limit, value }) = definition("tenant.wieght") else { panic!("it is unknown") };
    assert!(field == "setting" && limit.contains("tenant.weight") && value.contains("wieght"), "{field} {limit} {value}");
    let user = TENANT_WEIGHT.definition.check_scope(&Scope::User("AK".into())).expect_err("not by user");
    assert!(matches!(user, Error::Invalid { value, .. } if value == "user AK"));
    assert!(TENANT_WEIGHT.definition.check_scope(&Scope::Tenant(0)).is_err(), "the directory is nobody's tenant");
    assert!(TENANT_WEIGHT.definition.check_scope(&Scope::Pod(String::new())).is_err());
}

#[test]
fn rows_of_another_build_are_not_in_force_and_are_told() {
    let settings = Settings::new(labels());
    settings.replace(
        7,
        &[
            record("tenant.weight", &Scope::Cluster, "999999999"),
            record("nobody.knows", &Scope::Cluster, "1"),
            record("tenant.weight", &Scope::User("AK".into()), "5"),
            record("service.s3", &Scope::Cluster, "false"),
        ],
    );
    assert_eq!((settings.revision(), settings.get(&TENANT_WEIGHT, Asker::NODE)), (7, 100));
    assert!(!settings.get(&SERVICE_S3, Asker::tenant(3)));
    assert_eq!(settings.table().unusable().len(), 3);
}

#[test]
fn a_suspended_tenant_is_told_so_with_the_reason() {
    let settings = Settings::default();
    let mut suspended = record("tenant.access", &Scope::Tenant(5), "suspended");
    suspended.reason = "unpaid since March".into();
    settings.replace(
        1,
        &[suspended, record("tenant.access", &Scope::Tenant(6), "read_only"), record("service.s3", &Scope::Tenant(7), "false")],
    );
    let Err(Error::Suspended { message }) = settings.check_tenant(5, false) else { panic!("it is suspended") };
    assert_eq!(message, "tenant 5 is suspended: unpaid since March");
    assert!(settings.check_service(gate::Service::S3, 5).is_err());
    settings.check_tenant(6, false).expect("it may read");
    settings.check_tenant(6, true).expect_err("it may not write");
    settings.check_service(gate::Service::Fs, 7).expect("only S3 is off");
    assert!(matches!(settings.check_service(gate::Service::S3, 7), Err(Error::Suspended { message }) if message.contains("service s3")));
    settings.check_tenant(8, true).expect("nobody touched it");
    settings.replace(2, &[record("tenant.access", &Scope::Cluster, "suspended")]);
    settings.check_tenant(8, false).expect_err("all are");
    settings.check_tenant(0, true).expect("nodes must learn when it is over");
}

fn scopes() -> impl Strategy<Value = Scope> {
    let word = |good: &'static str| prop_oneof![Just(good.to_owned()), Just("other".to_owned())];
    prop_oneof![
        Just(Scope::Cluster),
        word("fra").prop_map(Scope::DataCentre),
        word("p1").prop_map(Scope::Pod),
        word("ssd").prop_map(Scope::HostGroup),
        (1_u64..3).prop_map(Scope::Tenant),
    ]
}

proptest! {
    #[test]
    fn scopes_survive_the_directory(scope in scopes()) {
        prop_assert_eq!(Scope::from_proto(&scope.to_proto()), Some(scope));
    }

    /// The table on the hot path and the explanation agree, whatever was set and in whatever order it was read.
    #[test]
    fn the_table_says_what_the_explanation_says(
        rows in proptest::collection::btree_map(scopes(), 1_u64..10_000, 0..12),
        reversed in any::<bool>(),
        tenant in proptest::option::of(1_u64..4),
    ) {
        let mut records: Vec<_> = rows.iter().map(|(scope, value)| record("tenant.weight", scope, &value.to_string())).collect();
        if reversed {
            records.reverse();
        }
        let asker = Asker { tenant, user: None };
        let explained = explain(&TENANT_WEIGHT.definition, &records, &labels(), asker);
        let settings = Settings::new(labels());
        settings.replace(1, &records);
        prop_assert_eq!(Value::Integer(settings.get(&TENANT_WEIGHT, asker)), explained[0].value);
        let most_special = rows.keys().filter(|scope| scope.holds_for(&labels(), asker)).max_by_key(|scope| scope.kind());
        prop_assert_eq!(explained[0].scope.as_ref(), most_special);
    }
}
