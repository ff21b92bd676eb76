// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title The token in which work is paid and stake is held
/// @notice All of it exists from the start; it can only become less (slashed stake is burned).
contract ConunToken is ERC20, ERC20Burnable, ERC20Permit {
    /// @param holder Who gets all tokens.
    /// @param supply How many, in the smallest unit (10^-18).
    constructor(address holder, uint256 supply) ERC20("Conun", "CONUN") ERC20Permit("Conun") {
        _mint(holder, supply);
    }
}
