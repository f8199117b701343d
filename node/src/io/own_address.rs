//! Peers that are this member itself under another name or as an address: the settings may list them, and nobody
//! should wait for their answer.

use std::{net::IpAddr, time::Duration};

use mizuya_wire::settings::Settings;
use nix::ifaddrs::getifaddrs;
use tokio::{net::lookup_host, time::timeout};

/// How long a name may take to resolve before the peer is kept as it is.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes peers that are this member itself out of the settings, and returns them. A name that does not resolve yet
/// stays: other members start later.
pub async fn drop_own(settings: &mut Settings) -> Vec<String> {
    let bound = settings.bind_addr.ip();
    let own: Vec<IpAddr> = if bound.is_unspecified() { interfaces() } else { vec![bound] };
    let mut dropped = Vec::new();
    for peer in std::mem::take(&mut settings.peers) {
        let port = peer.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        if port == Some(settings.gossip_port()) && is_own(&peer, &own).await {
            dropped.push(peer);
        } else {
            settings.peers.push(peer);
        }
    }
    dropped
}

async fn is_own(peer: &str, own: &[IpAddr]) -> bool {
    match timeout(RESOLVE_TIMEOUT, lookup_host(peer)).await {
        Ok(Ok(found)) => {
            let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            // A name for several members, one of which is this one, is a name for others too.
            !found.is_empty() && found.iter().all(|address| own.contains(address))
        }
        Ok(Err(_)) | Err(_) => false,
    }
}

fn interfaces() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_member_under_another_name_is_dropped_and_nobody_else() {
        let mut settings = Settings {
            peers: [
                "127.0.0.1:3322",
                "localhost:3322",
                "127.0.0.1:3333",
                "127.0.0.9:3322",
                "no-such-host.invalid:3322",
            ]
            .map(str::to_owned)
            .to_vec(),
            ..Settings::default()
        };
        let dropped = drop_own(&mut settings).await;
        assert!(dropped.contains(&"127.0.0.1:3322".to_owned()) && dropped.contains(&"localhost:3322".to_owned()));
        assert_eq!(settings.peers, ["127.0.0.1:3333", "127.0.0.9:3322", "no-such-host.invalid:3322"]);

        settings.bind_addr = "127.0.0.9:3320".parse().unwrap();
        assert_eq!(drop_own(&mut settings).await, ["127.0.0.9:3322"]);
    }
}
