//! What the API server refuses, as one table of CEL rules. Every message says the way out.
//!
//! Defaults are filled in before the rules run, so a rule may read any field that has a default.

/// One rule of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The object that the rule is about, as a path of field names from the root.
    pub path: &'static str,
    /// CEL that must be true; `self` is the object at `path`.
    pub rule: &'static str,
    /// What to do when it is not.
    pub message: &'static str,
    /// The field below `path` that the error names.
    pub field: &'static str,
}

const fn rule(path: &'static str, field: &'static str, rule: &'static str, message: &'static str) -> Rule {
    Rule { path, rule, message, field }
}

/// All rules.
pub const RULES: &[Rule] = &[
    rule("", "", "self.metadata.name.size() <= 40", "metadata.name may have at most 40 characters: shorten it"),
    rule(
        "",
        "",
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name becomes the name of a Service: use lower-case letters, digits and '-', begin with a letter and end with a letter or digit",
    ),
    rule(
        "spec",
        ".replicas",
        "self.replicas >= 1",
        "replicas must be at least 1; to remove the cache, delete the CacheCluster",
    ),
    rule(
        "spec",
        ".replicas",
        "self.replicas <= 256",
        "replicas must be at most 256; use several CacheClusters for more",
    ),
    rule(
        "spec",
        ".partitions",
        "self.partitions >= self.replicas && self.partitions <= 16384",
        "partitions must be between replicas and 16384; leave it out for 256",
    ),
    rule(
        "spec",
        ".replicas",
        "self.mode != 'single' || self.replicas == 1",
        "mode single is one local cache: set replicas to 1, or mode to ha",
    ),
    rule(
        "spec.replication",
        ".factor",
        "self.factor >= 1 && self.factor <= 16",
        "replication.factor must be between 1 and 16; 2 survives the loss of one node",
    ),
    rule(
        "spec.replication",
        ".writeQuorum",
        "self.writeQuorum >= 1 && self.writeQuorum <= self.factor",
        "replication.writeQuorum must be between 1 and replication.factor: lower it or raise the factor",
    ),
    rule(
        "spec.replication",
        ".readQuorum",
        "self.readQuorum >= 1 && self.readQuorum <= self.factor",
        "replication.readQuorum must be between 1 and replication.factor: lower it or raise the factor",
    ),
    rule(
        "spec",
        ".replication.writeQuorum",
        "self.mode != 'ha' || self.replication.writeQuorum <= self.replicas",
        "replication.writeQuorum is above replicas, so no write could succeed: lower it or raise replicas",
    ),
    rule(
        "spec",
        ".replication.readQuorum",
        "self.mode != 'ha' || self.replication.readQuorum <= self.replicas",
        "replication.readQuorum is above replicas, so no read could succeed: lower it or raise replicas",
    ),
    rule(
        "spec.replication",
        ".memberCountQuorum",
        "type(self.memberCountQuorum) == int ? self.memberCountQuorum >= 1 : self.memberCountQuorum == 'auto'",
        "replication.memberCountQuorum must be auto or a number from 1",
    ),
    rule(
        "spec",
        ".replication.memberCountQuorum",
        "self.mode != 'ha' || type(self.replication.memberCountQuorum) != int || self.replication.memberCountQuorum <= self.replicas",
        "replication.memberCountQuorum is above replicas and could never be reached: set it to auto, or raise replicas",
    ),
    rule(
        "spec.ports",
        ".client",
        "self.client >= 1024 && self.client <= 65533",
        "ports.client must be between 1024 and 65533: nodes run without privileges, and the gossip port is the client port + 2",
    ),
    rule(
        "spec.ports",
        ".gossip",
        "!has(self.gossip) || self.gossip == self.client + 2",
        "ports.gossip is always ports.client + 2: leave it out",
    ),
    rule(
        "spec.ports",
        ".http",
        "self.http >= 1024 && self.http <= 65535 && self.http != self.client && self.http != self.client + 2",
        "ports.http must be between 1024 and 65535 and differ from the client port and the gossip port (client + 2)",
    ),
    rule(
        "spec",
        ".ports",
        "self.ports.client == oldSelf.ports.client && self.ports.http == oldSelf.ports.http",
        "ports cannot be changed while the cluster runs: delete this CacheCluster and create it anew, or make another beside it",
    ),
    rule(
        "spec",
        ".environment",
        "self.environment == oldSelf.environment",
        "environment cannot be changed while the cluster runs, because nodes of different environments do not join each other: delete this CacheCluster and create it anew, or make another beside it",
    ),
    rule(
        "spec",
        ".mode",
        "self.mode == oldSelf.mode",
        "mode cannot be changed: delete this CacheCluster and create it anew, or make another beside it",
    ),
    rule(
        "spec",
        ".partitions",
        "self.partitions == oldSelf.partitions",
        "partitions cannot be changed, because every key's place depends on it: delete this CacheCluster and create it anew",
    ),
    rule(
        "spec",
        ".defaultMap",
        "self.defaultMap == oldSelf.defaultMap",
        "defaultMap cannot be changed while the cluster runs: delete this CacheCluster and create it anew, or make another beside it",
    ),
    rule(
        "spec",
        ".defaultMap",
        "self.defaultMap.size() <= 64 && self.defaultMap.matches('^[A-Za-z0-9._:-]+$')",
        "defaultMap must be 1 to 64 letters, digits, '.', '_', ':' or '-'",
    ),
    rule(
        "spec",
        ".image",
        "!has(self.image) || self.image.matches('^[^ \\t\\n]{1,512}$')",
        "image must be a reference such as registry.example/mizuya/node:1.0, without spaces; leave it out for the operator's own",
    ),
    rule(
        "spec",
        ".leaveTimeout",
        "self.leaveTimeout.matches('^[0-9]{1,6}(ms|s|m)$') && duration(self.leaveTimeout) <= duration('4m')",
        "leaveTimeout must be a time such as 5s or 500ms, and at most 4m, because a pod has 5 minutes to stop",
    ),
    rule(
        "spec.scaleDown",
        ".stabilization",
        "self.stabilization.matches('^[0-9]{1,6}(ms|s|m|h)$')",
        "scaleDown.stabilization must be a time such as 5m, 30s or 0s",
    ),
    rule(
        "spec.scaleDown",
        ".drainTimeout",
        "!has(self.drainTimeout) || self.drainTimeout.matches('^[0-9]{1,6}(ms|s|m|h)$')",
        "scaleDown.drainTimeout must be a time such as 30m; leave it out for none",
    ),
    rule(
        "spec.hotKeys",
        ".mirror",
        "!has(self.mirror) || self.mirror.matches('^([1-9][0-9]?|100)ms$')",
        "hotKeys.mirror must be a time from 1ms to 100ms; leave it out for no mirrors",
    ),
    rule(
        "spec",
        ".storage",
        "has(self.storage) == has(oldSelf.storage)",
        "storage cannot be added or removed, because volumes are part of the pods' identity: make another CacheCluster beside this one and move its clients there, or delete this one and create it anew",
    ),
    rule(
        "spec.storage",
        ".size",
        "self.size == oldSelf.size",
        "storage.size cannot be changed here: enlarge the PersistentVolumeClaims themselves if their class allows it, or delete this CacheCluster and create it anew",
    ),
    rule(
        "spec.storage",
        ".storageClassName",
        "has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
        "storage.storageClassName cannot be changed: make another CacheCluster beside this one and move its clients there, or delete this one and create it anew",
    ),
    rule(
        "spec.storage",
        ".size",
        "self.size.matches('^[1-9][0-9]{0,14}(k|M|G|T|Ki|Mi|Gi|Ti)?$')",
        "storage.size must be a whole size such as 1Gi",
    ),
    rule(
        "spec.storage",
        ".snapshotInterval",
        "self.snapshotInterval.matches('^[0-9]{1,6}(ms|s|m|h)$')",
        "storage.snapshotInterval must be a time such as 5m; 0s for none while a node runs",
    ),
    rule(
        "spec",
        ".storage",
        "self.mode != 'disabled' || !has(self.storage)",
        "mode disabled stores nothing: leave storage out, or set mode to ha",
    ),
    rule(
        "spec.memory",
        ".maxMemory",
        "!has(self.maxMemory) || self.maxMemory.matches('^[1-9][0-9]{0,14}(k|M|G|Ki|Mi|Gi)?$')",
        "memory.maxMemory must be a whole size such as 180Mi or 2Gi; leave it out for 70 % of the memory limit",
    ),
    rule(
        "spec",
        ".memory.maxMemory",
        "!has(self.memory.maxMemory) || !isQuantity(self.memory.maxMemory) || \
         (has(self.resources) ? (!has(self.resources.limits) || !('memory' in self.resources.limits) || \
         quantity(self.memory.maxMemory).isLessThan(quantity(string(self.resources.limits['memory'])))) : \
         quantity(self.memory.maxMemory).isLessThan(quantity('256Mi')))",
        "memory.maxMemory must be below the memory limit (256Mi unless resources.limits.memory says otherwise), because a node needs room beside its entries: raise resources.limits.memory, or leave maxMemory out for 70 % of it",
    ),
    rule(
        "spec",
        ".resources",
        "!has(self.resources) || has(self.memory.maxMemory) || (has(self.resources.limits) && 'memory' in self.resources.limits)",
        "without a memory limit a node cannot tell how much it may cache: set resources.limits.memory, or memory.maxMemory",
    ),
    rule(
        "spec",
        ".resources",
        "!has(self.resources) || !has(self.resources.limits) || !has(self.resources.requests) || \
         self.resources.requests.all(k, !(k in self.resources.limits) || \
         quantity(string(self.resources.requests[k])).compareTo(quantity(string(self.resources.limits[k]))) <= 0)",
        "a request in resources.requests is above its limit in resources.limits: lower the request or raise the limit",
    ),
    rule(
        "spec.placement",
        ".zoneLabel",
        "!has(self.zoneLabel) || self.zoneLabel.matches('^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')",
        "placement.zoneLabel must be the name of a label such as topology.kubernetes.io/zone; leave it out where the operator may read Kubernetes nodes",
    ),
];
