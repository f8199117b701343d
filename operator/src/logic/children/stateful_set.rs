//! The pods. `Parallel`, so that a cluster starts at once; `OnDelete`, so that only the operator decides when a pod is
//! replaced (rule O8).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{
            StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
        },
        core::v1::{
            Capabilities, ConfigMapProjection, Container, ContainerPort, DownwardAPIProjection, DownwardAPIVolumeFile,
            EnvVar, EnvVarSource, HTTPGetAction, KeyToPath, ObjectFieldSelector, PersistentVolumeClaim,
            PersistentVolumeClaimSpec, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource,
            ResourceRequirements, SeccompProfile, SecretProjection, SecurityContext, Toleration,
            TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection, VolumeResourceRequirements,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::{
    CONTAINER, Child, RESTARTED_AT, RenderError, SETTINGS_HASH, Wanted, ZONE, ZONE_LABEL, config_map, secrets,
};
use crate::crd::{Keep, Mode, Storage, Zones};

/// A constant, so that no field's change restarts pods for it (rule O3).
const GRACE_PERIOD_SECONDS: i64 = 300;
/// How long a pod stays on a node that is lost (rule O11).
const LOST_NODE_SECONDS: i64 = 30;
/// The user and group of the image, without privileges.
const USER: i64 = 65_532;
/// Files are readable by that group only.
const FILE_MODE: i32 = 0o440;
const VOLUME: &str = "config";
const ZONE_FILE: &str = "zone";
const DATA: &str = "data";
/// How long a node may read its volume before it answers, in seconds.
const READING_SECONDS: i32 = 600;

/// The `StatefulSet`.
pub fn render(wanted: &Wanted<'_>) -> Result<StatefulSet, RenderError> {
    let labels = wanted.id.labels();
    Ok(StatefulSet {
        metadata: wanted.id.metadata(Child::StatefulSet),
        spec: Some(StatefulSetSpec {
            replicas: Some(wanted.replicas),
            service_name: Some(Child::PeersService.name(&wanted.id.name)),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            selector: LabelSelector { match_labels: Some(labels.clone()), match_expressions: None },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(annotations(wanted)?),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(wanted)),
            },
            volume_claim_templates: wanted.cluster.spec.storage.as_ref().map(|storage| vec![claim(storage)]),
            persistent_volume_claim_retention_policy: wanted.cluster.spec.storage.as_ref().map(retention),
            ..StatefulSetSpec::default()
        }),
        status: None,
    })
}

fn annotations(wanted: &Wanted<'_>) -> Result<BTreeMap<String, String>, RenderError> {
    let mut annotations = BTreeMap::from([(SETTINGS_HASH.to_owned(), config_map::restart_hash(wanted)?)]);
    let asked = wanted.cluster.metadata.annotations.as_ref().and_then(|all| all.get(RESTARTED_AT));
    if let Some(at) = asked {
        annotations.insert(RESTARTED_AT.to_owned(), at.clone());
    }
    Ok(annotations)
}

fn pod(wanted: &Wanted<'_>) -> PodSpec {
    let placement = &wanted.cluster.spec.placement;
    PodSpec {
        service_account_name: Some(Child::ServiceAccount.name(&wanted.id.name)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_PERIOD_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(wanted)],
        volumes: Some(vec![volume(wanted)]),
        tolerations: Some(tolerations(wanted)),
        topology_spread_constraints: Some(spread(wanted)),
        affinity: placement.affinity.clone(),
        node_selector: (!placement.node_selector.is_empty()).then(|| placement.node_selector.clone()),
        priority_class_name: placement.priority_class_name.clone(),
        ..PodSpec::default()
    }
}

fn container(wanted: &Wanted<'_>) -> Container {
    let ports = wanted.cluster.spec.ports;
    let starting = if wanted.cluster.spec.storage.is_some() { READING_SECONDS } else { 60 };
    let port = |name: &str, number: i32, protocol: &str| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some(protocol.to_owned()),
        ..ContainerPort::default()
    };
    Container {
        name: CONTAINER.to_owned(),
        image: Some(wanted.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(vec!["--config".to_owned(), format!("{}/{}", config_map::FOLDER, config_map::FILE)]),
        env: Some(environment(wanted)),
        ports: Some(vec![
            port("redis", ports.client, "TCP"),
            port("peer", ports.gossip_port(), "TCP"),
            port("gossip", ports.gossip_port(), "UDP"),
            port("http", ports.http, "TCP"),
        ]),
        // Starting may take a minute, or as long as a volume is read; a hung process is replaced after 30 s; readiness follows within 3 s.
        startup_probe: Some(probe("/healthz", ports.http, 1, starting)),
        liveness_probe: Some(probe("/healthz", ports.http, 5, 6)),
        readiness_probe: Some(probe("/readyz", ports.http, 1, 3)),
        resources: Some(resources(wanted)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts(wanted)),
        ..Container::default()
    }
}

/// Where a pod finds its zone, if anyone can tell it: what the operator writes, or what something else does (rule O13).
fn zone_field(wanted: &Wanted<'_>) -> Option<String> {
    let spec = &wanted.cluster.spec;
    if spec.mode != Mode::Ha || spec.placement.zones == Zones::Off {
        return None;
    }
    let label = spec.placement.zone_label.as_ref().map(|label| format!("metadata.labels['{label}']"));
    label.or_else(|| wanted.operator.reads_nodes.then(|| format!("metadata.annotations['{ZONE}']")))
}

fn mounts(wanted: &Wanted<'_>) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let data = wanted.cluster.spec.storage.as_ref().map(|_| mount(DATA, config_map::DATA_FOLDER, false));
    std::iter::once(mount(VOLUME, config_map::FOLDER, true)).chain(data).collect()
}

/// The volume of each pod. It cannot be changed once the StatefulSet is there; a rule of the schema says so.
fn claim(storage: &Storage) -> PersistentVolumeClaim {
    let size = BTreeMap::from([("storage".to_owned(), Quantity(storage.size.clone()))]);
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(DATA.to_owned()), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements { requests: Some(size), limits: None }),
            storage_class_name: storage.storage_class_name.clone(),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

fn retention(storage: &Storage) -> StatefulSetPersistentVolumeClaimRetentionPolicy {
    let word = |keep: Keep| match keep {
        Keep::Delete => "Delete".to_owned(),
        Keep::Retain => "Retain".to_owned(),
    };
    StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_scaled: Some(word(storage.retention.when_scaled)),
        when_deleted: Some(word(storage.retention.when_deleted)),
    }
}

fn environment(wanted: &Wanted<'_>) -> Vec<EnvVar> {
    let pod_name = EnvVarSource {
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: "metadata.name".to_owned(),
        }),
        ..EnvVarSource::default()
    };
    let mut environment = vec![
        EnvVar { name: "POD_NAME".to_owned(), value: None, value_from: Some(pod_name) },
        EnvVar {
            name: "MIZUYA_NAME".to_owned(),
            value: Some(format!("$(POD_NAME).{}", wanted.id.peers_domain())),
            value_from: None,
        },
    ];
    if zone_field(wanted).is_some() {
        let value = Some(format!("{}/{ZONE_FILE}", config_map::FOLDER));
        environment.push(EnvVar { name: "MIZUYA_ZONE_FILE".to_owned(), value, value_from: None });
    }
    environment
}

fn probe(path: &str, port: i32, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn resources(wanted: &Wanted<'_>) -> ResourceRequirements {
    let quantities = |pairs: &[(&str, &str)]| -> BTreeMap<String, Quantity> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned()))).collect()
    };
    let (requests, limits) = match &wanted.cluster.spec.resources {
        None => (quantities(&[("cpu", "50m"), ("memory", "64Mi")]), quantities(&[("memory", "256Mi")])),
        Some(given) => (given.requests.clone(), given.limits.clone()),
    };
    let some = |map: BTreeMap<String, Quantity>| (!map.is_empty()).then_some(map);
    ResourceRequirements { requests: some(requests), limits: some(limits), claims: None }
}

/// One volume with the settings file, and the certificates in a folder below it.
fn volume(wanted: &Wanted<'_>) -> Volume {
    let file = |key: &str, path: String| KeyToPath { key: key.to_owned(), path, mode: None };
    let certificates = [secrets::CA_CERTIFICATE, secrets::CERTIFICATE, secrets::KEY, secrets::GOSSIP_KEY];
    let settings = ConfigMapProjection {
        name: Child::Settings.name(&wanted.id.name),
        items: Some(vec![file(config_map::FILE, config_map::FILE.to_owned())]),
        optional: None,
    };
    let security = SecretProjection {
        name: Child::SecuritySecret.name(&wanted.id.name),
        items: Some(certificates.iter().map(|name| file(name, format!("security/{name}"))).collect()),
        optional: None,
    };
    let zone = zone_field(wanted).map(|field_path| DownwardAPIProjection {
        items: Some(vec![DownwardAPIVolumeFile {
            path: ZONE_FILE.to_owned(),
            field_ref: Some(ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path }),
            ..DownwardAPIVolumeFile::default()
        }]),
    });
    let mut sources = vec![
        VolumeProjection { config_map: Some(settings), ..VolumeProjection::default() },
        VolumeProjection { secret: Some(security), ..VolumeProjection::default() },
    ];
    sources.extend(zone.map(|zone| VolumeProjection { downward_api: Some(zone), ..VolumeProjection::default() }));
    Volume {
        name: VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(FILE_MODE), sources: Some(sources) }),
        ..Volume::default()
    }
}

fn tolerations(wanted: &Wanted<'_>) -> Vec<Toleration> {
    let lost = |key: &str| Toleration {
        key: Some(format!("node.kubernetes.io/{key}")),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        toleration_seconds: Some(LOST_NODE_SECONDS),
        value: None,
    };
    let own = [lost("not-ready"), lost("unreachable")];
    own.into_iter().chain(wanted.cluster.spec.placement.tolerations.iter().cloned()).collect()
}

fn spread(wanted: &Wanted<'_>) -> Vec<TopologySpreadConstraint> {
    let given = &wanted.cluster.spec.placement.topology_spread_constraints;
    if !given.is_empty() {
        return given.clone();
    }
    let over = |key: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector { match_labels: Some(wanted.id.labels()), match_expressions: None }),
        ..TopologySpreadConstraint::default()
    };
    vec![over(ZONE_LABEL), over("kubernetes.io/hostname")]
}
