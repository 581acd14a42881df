//! How quickly an idle processor has to be back at work (Linux's CPU latency request, `/dev/cpu_dma_latency`).

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};

use super::Result;

/// No request: what the kernel takes for "any latency will do", microseconds.
const NONE: i32 = 2_000_000_000;
/// Shallow sleep states stay allowed, in which a processor is back after a microsecond or two.
const SHALLOW: i32 = 10;
/// No sleep at all: a guest's only sleep is to be taken off its processor, from which it is long in coming back.
const AWAKE: i32 = 0;

/// A request to the kernel, in force while it is made and gone with the process.
#[derive(Debug)]
pub struct Request {
    device: OwnedFd,
    latency: i32,
}

impl Request {
    /// Prepares a request; nothing changes yet.
    ///
    /// # Errors
    /// EACCES for who may not (only root may, usually); ENOENT where the kernel has no such device.
    pub fn new() -> Result<Self> {
        let device = rustix::fs::openat(
            CWD,
            "/dev/cpu_dma_latency",
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let governor = std::fs::read_to_string("/sys/devices/system/cpu/cpuidle/current_governor");
        let guest = governor.is_ok_and(|name| name.trim() == "haltpoll");
        let request = Self {
            device,
            latency: if guest { AWAKE } else { SHALLOW },
        };
        // An open device asks for no sleep at all until it is told otherwise.
        request.withdraw()?;
        Ok(request)
    }

    /// Processors that go idle from now on stay near.
    ///
    /// # Errors
    /// As write(2).
    pub fn make(&self) -> Result<()> {
        self.set(self.latency)
    }

    /// Takes the request back.
    ///
    /// # Errors
    /// As write(2).
    pub fn withdraw(&self) -> Result<()> {
        self.set(NONE)
    }

    fn set(&self, microseconds: i32) -> Result<()> {
        rustix::io::write(&self.device, &microseconds.to_ne_bytes()).map(drop)
    }
}
