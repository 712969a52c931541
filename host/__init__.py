"""What runs beside the NIC: loader, driver, devices, command line."""
