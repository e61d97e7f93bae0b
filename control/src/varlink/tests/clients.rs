//! Blocking clients: ours, and the one of the `varlink` crate, which nobody here wrote.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::super::{CallError, Client};
use super::Bench;
use crate::api::{Error, Ports, Reply, Request};

/// Runs a server in a thread of its own, for clients that block.
struct Background {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    fn start() -> Background {
        let mut bench = Bench::new();
        let (path, stop) = (bench.path.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                bench.run();
            }
        });
        Background { path, stop, thread: Some(thread) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn our_client_calls_and_streams() {
    let server = Background::start();
    let mut client = Client::connect(&server.path).unwrap();
    assert_eq!(client.call(&Request::ListPorts).unwrap(), Reply::Ports(Ports { ports: Vec::new() }));
    let missing = client.call(&Request::ShowPort { name: "x".into() });
    assert!(matches!(missing, Err(CallError::Switch(Error::NotFound { .. }))));
    let request = Request::GetStats { port: None, interval_milliseconds: Some(100) };
    let times: Vec<u64> = client
        .stream(&request)
        .unwrap()
        .take(3)
        .map(|reply| match reply {
            Ok(Reply::Stats(stats)) => stats.uptime_milliseconds,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(times.is_sorted_by(|earlier, later| earlier < later), "{times:?}");
    assert!(Client::connect(Path::new("/nonexistent/labsw.sock")).is_err());
}

#[test]
fn a_varlink_client_of_others_understands_the_server() {
    use ::varlink::OrgVarlinkServiceInterface;

    let server = Background::start();
    let connection = ::varlink::Connection::with_address(&format!("unix:{}", server.path.display())).unwrap();
    let mut service = ::varlink::OrgVarlinkServiceClient::new(Arc::clone(&connection));
    let info = service.get_info().unwrap();
    assert_eq!(info.interfaces, ["org.varlink.service", "org.labsw.Switch1"]);
    for interface in ["org.varlink.service", "org.labsw.Switch1"] {
        let reply = service.get_interface_description(interface).unwrap();
        let description = reply.description.unwrap();
        assert_eq!(varlink_parser::IDL::try_from(description.as_str()).unwrap().name, interface);
    }

    type Call<T> = ::varlink::MethodCall<Value, T, ::varlink::Error>;
    let mut list = Call::<Value>::new(Arc::clone(&connection), "org.labsw.Switch1.ListPorts", json!({}));
    assert_eq!(list.call().unwrap(), json!({"ports": []}));
    let mut show = Call::<Value>::new(Arc::clone(&connection), "org.labsw.Switch1.ShowPort", json!({"name": "x"}));
    match show.call().unwrap_err().kind() {
        ::varlink::ErrorKind::VarlinkErrorReply(reply) => {
            assert_eq!(reply.error.as_deref(), Some("org.labsw.Switch1.NotFound"));
        }
        other => panic!("{other:?}"),
    }
    let parameters = json!({"interval_milliseconds": 100});
    let mut stats = Call::<Value>::new(Arc::clone(&connection), "org.labsw.Switch1.GetStats", parameters);
    let streamed = stats.more().unwrap().take(2).map(|reply| reply.unwrap()["ports"][0]["name"].clone());
    assert_eq!(streamed.collect::<Vec<Value>>(), ["a", "a"]);
}
