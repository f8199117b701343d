//! A real Kubernetes on one machine, without a container engine or a registry.
//!
//! One control plane and three nodes share this machine's network namespace. Each node is a containerd and a kubelet with
//! a bridge of its own; pods are in network namespaces on these bridges, and the machine itself routes between them.
//! So pod, node and Service addresses are reachable from the machine.
//!
//! [`up::up`] makes it, [`down::down`] leaves nothing of it behind. All files are below [`state::State`]'s folder, all
//! processes carry its mark, all containers are below one cgroup, all links and rules carry our prefix: that is how a
//! crashed run is found and cleaned.

pub mod before;
pub mod binaries;
pub mod certificates;
pub mod cgroup;
pub mod choice;
pub mod command_line;
pub mod containerd;
pub mod control_plane;
pub mod daemon;
pub mod dns;
pub mod down;
pub mod etcd;
pub mod firewall;
pub mod health;
pub mod images;
pub mod kind;
pub mod kind_check;
pub mod kubeconfig;
pub mod kubectl;
pub mod kubelet;
pub mod mounts;
pub mod network;
pub mod node;
pub mod packages;
pub mod partition;
pub mod progress;
pub mod service_proxy;
pub mod state;
pub mod status;
pub mod storage;
pub mod tool;
pub mod topology;
pub mod up;
