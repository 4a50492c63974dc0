//! Before the start in place of a MetalLB: whether something would fall silent by it.
//!
//! A speaker that waits here answers for nothing, meets nobody and is not ready, so a roll-out goes no further than to the first
//! node. An API server that does not answer holds up nobody, nor does anything hold up a speaker that has worked in this pod before.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use garpike_kubernetes::http::{self, Answer};
use garpike_kubernetes::{
    BgpInUse, Component, ConfigurationReporter, bgp_in_use, connect, recorder, wait_for_bgp_to_end,
};
use hyper::StatusCode;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::args::Args;

/// Waits until nothing that a MetalLB announces by BGP would fall silent.
///
/// # Errors
///
/// When the port of the probes is taken, while it waits.
pub(crate) async fn hold_back_for_bgp(args: &Args) -> Result<()> {
    let has_worked =
        args.state_dir.as_ref().is_some_and(|dir| dir.read_dir().is_ok_and(|mut files| files.next().is_some()));
    if args.ignore_bgp || args.manifests.is_some() || has_worked {
        return Ok(());
    }
    // What is wrong with the credentials is told by who needs them next.
    let Ok(client) = connect(args.kubeconfig.as_deref()).await else { return Ok(()) };
    match bgp_in_use(&client, &args.namespace).await {
        Ok(None) => Ok(()),
        Ok(Some(bgp)) => wait(args, client, bgp).await,
        Err(error) => {
            debug!(error, "cannot see whether a MetalLB announces by BGP: going on");
            Ok(())
        }
    }
}

async fn wait(args: &Args, client: Client, first: BgpInUse) -> Result<()> {
    let stop = CancellationToken::new();
    let _stops = stop.clone().drop_guard();
    let (told, shown) = watch::channel(first.to_string());
    let (problems_in, problems) = watch::channel(Some(vec![first.to_string()]));
    let probes = async {
        if args.health_probe_port == 0 {
            return std::future::pending().await;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.health_probe_port));
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("--health-probe-port: cannot listen on {address}; choose another port or stop its present user")
        })?;
        http::serve(listener, Arc::new(move |path| probe(path, &shown.borrow())), stop.clone()).await;
        Ok(())
    };
    let pod = Some(args.pod_name.clone()).filter(|pod| !pod.is_empty());
    let component = Component::Speaker(args.node_name.clone());
    let reporter = ConfigurationReporter::new(client.clone(), &args.namespace, component, pod);
    let (recorder, record) = recorder(client.clone(), "metallb-speaker", args.node_name.to_string());
    let look = wait_for_bgp_to_end(&client, &args.namespace, first, &recorder, |message| {
        told.send_replace(message.clone());
        problems_in.send_replace(Some(vec![message]));
    });
    tokio::select! {
        () = look => info!("nothing is announced by BGP any more: taking over"),
        ended = probes => return ended,
        () = reporter.run(problems, stop.clone()) => {}
        () = record => {}
    }
    Ok(())
}

fn probe(path: &str, why: &str) -> Option<Answer> {
    match path {
        "/healthz" => Some(Answer::text(StatusCode::OK, "ok\n")),
        "/readyz" => Some(Answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"))),
        _ => None,
    }
}
