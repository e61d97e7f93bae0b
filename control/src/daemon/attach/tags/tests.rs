use std::cell::{Cell, RefCell};

use super::*;

/// A device whose offload anybody switches on.
#[derive(Default)]
struct Fake {
    on: Cell<bool>,
    stuck: Cell<bool>,
    gone: Cell<bool>,
    /// Done when it is asked, once: what happens between a look and what follows from it.
    meanwhile: RefCell<Option<Box<dyn Fn()>>>,
}

impl TagDevice for Fake {
    fn taking(&self) -> Result<Vec<String>, DeviceError> {
        if self.gone.get() {
            return Err(DeviceError::Veth("no such device".to_owned()));
        }
        let on = self.on.get().then(|| "rx-vlan-hw-parse".to_owned());
        if let Some(happens) = self.meanwhile.take() {
            happens();
        }
        Ok(on.into_iter().collect())
    }

    fn stop(&self) -> Result<(), DeviceError> {
        if self.stuck.get() {
            return Err(DeviceError::Veth("it stays on".to_owned()));
        }
        self.on.set(false);
        Ok(())
    }
}

struct Scene {
    device: Fake,
    gate: Arc<Gate>,
    tags: Tags,
    now: Instant,
}

impl Scene {
    fn new() -> Scene {
        let gate = Arc::<Gate>::default();
        Scene { device: Fake::default(), tags: Tags::new(Arc::clone(&gate)), gate, now: Instant::now() }
    }

    /// Looks after so long; whether frames pass.
    fn look_after(&mut self, wait: Duration) -> bool {
        self.now += wait;
        self.tags.look("eth0", &self.device, self.now);
        let passes = self.gate.is_open();
        assert_eq!(self.tags.reason("eth0").is_none(), passes, "the reason is there as long as nothing passes");
        assert_eq!(self.tags.due().is_none(), passes, "and so is the next look");
        passes
    }
}

const MOMENT: Duration = Duration::from_millis(1);

#[test]
fn a_device_that_leaves_tags_in_is_left_alone() {
    let mut scene = Scene::new();
    assert!(scene.look_after(MOMENT) && scene.look_after(SETTLE));
    assert_eq!(scene.tags.put_right(scene.now), None);
}

#[test]
fn it_is_made_to_stop_and_nothing_passes_until_what_it_received_has_come_through() {
    let mut scene = Scene::new();
    scene.device.on.set(true);
    assert!(!scene.look_after(MOMENT), "no news had come before the look");
    assert!(!scene.device.on.get(), "made to stop");
    assert!(!scene.look_after(SETTLE - MOMENT), "its rings may still hold such frames");
    assert!(scene.look_after(MOMENT));
    let put_right = scene.tags.put_right(scene.now + Duration::from_secs(7)).unwrap();
    assert_eq!((put_right.times, put_right.seconds_ago), (1, 7));
}

#[test]
fn news_shut_the_gate_and_only_a_look_that_began_after_the_last_opens_it() {
    let mut scene = Scene::new();
    // On, and off again before anybody looked.
    scene.gate.shut();
    assert!(!scene.look_after(MOMENT) && !scene.look_after(SETTLE - MOMENT));
    scene.gate.shut();
    assert!(!scene.look_after(MOMENT), "once more: the time starts over");
    assert!(scene.look_after(SETTLE));
    // Just after the look that would open it.
    scene.gate.shut();
    assert!(!scene.look_after(MOMENT));
    let gate = Arc::clone(&scene.gate);
    scene.device.meanwhile.replace(Some(Box::new(move || gate.shut())));
    assert!(!scene.look_after(SETTLE));
    assert!(!scene.look_after(MOMENT), "the look that saw it starts the time over");
    assert!(scene.look_after(SETTLE));
    assert_eq!(scene.tags.put_right(scene.now), None, "nothing was put right");
}

#[test]
fn what_does_not_stop_or_cant_be_looked_at_stays_shut_and_is_tried_again() {
    let mut scene = Scene::new();
    scene.device.on.set(true);
    scene.device.stuck.set(true);
    for _ in 0..5 {
        assert!(!scene.look_after(RETRY));
        assert_eq!(scene.tags.due(), Some(scene.now + RETRY));
        assert!(scene.tags.reason("eth0").unwrap().contains("it stays on"));
    }
    scene.device.stuck.set(false);
    assert!(!scene.look_after(RETRY));
    assert!(scene.look_after(SETTLE));
    scene.device.gone.set(true);
    assert!(!scene.look_after(MOMENT) && scene.tags.reason("eth0").unwrap().contains("no such device"));
    scene.device.gone.set(false);
    assert!(!scene.look_after(MOMENT) && scene.look_after(SETTLE));
}

#[test]
fn who_switches_it_on_again_and_again_gets_nothing_through() {
    let mut scene = Scene::new();
    for _ in 0..100 {
        scene.device.on.set(true);
        scene.gate.shut();
        assert!(!scene.look_after(MOMENT * 20));
    }
    assert_eq!(scene.tags.put_right(scene.now).map(|put_right| put_right.times), Some(100));
    assert!(scene.look_after(SETTLE));
}
